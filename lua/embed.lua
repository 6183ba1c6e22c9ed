-- Writes the library modules into C: lua5.4 lua/embed.lua OUT lua/mail/*.lua
local out <close> = assert(io.open(arg[1], "w"))
out:write('#include "lua/state.h"\n\n')
local names = {}
for i = 2, #arg do
        local name = assert(arg[i]:match("([%w_]+)%.lua$"), arg[i])
        local file <close> = assert(io.open(arg[i], "rb"))
        local text = file:read("a")
        assert(load(text, "@" .. arg[i]))
        names[#names + 1] = name
        out:write("static const unsigned char text_", name, "[] = {\n") -- no string literal: C promises only 4095 bytes of one
        for at = 1, #text, 32 do
                out:write((text:sub(at, at + 31):gsub(".", function(c) return c:byte() .. "," end)), "\n")
        end
        out:write("0\n};\n")
end
out:write("\nconst struct embedded embedded_modules[] = {\n")
for _, name in ipairs(names) do
        out:write('        { "', name, '", (const char *)text_', name, ", sizeof text_", name, " - 1 },\n")
end
out:write("        { \"\", \"\", 0 },\n};\nconst size_t embedded_n = ", #names, ";\n")
