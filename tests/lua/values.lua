-- Strings, re, json, csv, sizes and spans.
local T = {}

function T.strings()
  check("user", ("me+lead@X.org").user, "me")
  check("detail", ("me+lead@X.org").detail, "lead")
  check("domain", ("me+lead@x.org").domain, "x.org")
  check("no at", ("nobody").user, "")
  check("no at", ("nobody").domain, "")
  check("empty", ("").detail, "")
  check("upper", ("a"):upper(), "A")
  check("contains", ("This is URGENT now"):contains "urgent")
  check("plain", ("a.b"):contains "a.", true)
  check("no pattern", ("axb"):contains "a.b", false)
  check("empty needle", ("x"):contains "", true)
  check("equal", ("x"):contains "X", true)
  check("long", ("x" .. ("aB"):rep(90) .. "y"):contains(("Ab"):rep(90)), true)
  check("long, absent", ("aB"):rep(90):contains(("Ab"):rep(89) .. "x"), false)
  check("longer", ("x"):contains "xx", false)
  check("unicode", ("GRÜSSE aus Köln"):contains "grü")
  check("literal stars", ("50 * 2 ü"):contains "* 2 Ü")
  check("literal brackets", ("a[ü]b?\\"):contains "[Ü]B?\\")
  check("not a set", ("aüb"):contains "[ü]", false)
  check("at the end", ("grün"):contains "ün")
  fails(function() return ("x"):contains(5) end, "string expected")
  check("number key", ("x")[1], nil)
  function string.shout(s) return s:upper() .. "!" end
  check("a script's own", ("a"):shout(), "A!")
  string.shout = nil
end

function T.re_match()
  check("whole", re.match("Invoice 12", [[\d+]]), "12")
  check("capture", re.match("Invoice #12", [[(?i)invoice\s+#?(\d+)]]), "12")
  check("none", re.match("x", "y"), nil)
  local a, b, c = re.match("ac", "(a)(b)?(c)")
  check("a", a, "a")
  check("unset", b, nil)
  check("c", c, "c")
  check("two", select("#", re.match("ac", "(a)(b)?")), 2)
  check("unicode", re.match("ÄÖ", "(?i)äö"), "ÄÖ")
  check("property", re.match("xé1", [[\w+]]), "xé1")
  check("empty", re.match("", "^$"), "")
  check("NUL", re.match("a\0b", "a\0b"), "a\0b")
  check("invalid", re.match("\xff\xfeabc\xff", "[a-c]+"), "abc")
  check("object", re.match("x7", re [[\d]]), "7")
  check("method", re [[(\d)]]:match "x7", "7")
  check("test", re "a":test "bab", true)
  check("test", re "a":test "bbb", false)
  check("tostring", tostring(re "a+"), 're "a+"')
  check("cached", re "abc" == re "abc")
  fails(function() re "a(" end, "is wrong at character 3")
  fails(function() re.match("x", 5) end, "pattern or re object expected")
  fails(function() re.match(5, "x") end, "string expected")
  fails(function() re [[\C]] end, "is wrong")
end

function T.re_limits()
  local text = ("a"):rep(5000) .. "!"
  fails(function() re.match(text, "^(a+)+$") end, "too many steps")
  fails(function() re.match(("x"):rep(100000), "(x+x+)+[yz]") end, "too many steps")
  check("deep but honest", #re.match(("ab"):rep(20000), "(?:ab)+"), 40000)
  fails(function() re(("a"):rep(70000)) end, "too long")
  check("still works", re.match(text, "a!"), "a!")
end

function T.re_windows()
  local pad = ("é"):rep(5000)
  check("late", re.match(pad .. "x1", [[x(\d)]]), "1")
  check("looks back", re.match(pad .. "x1", [[(?<=éx)\d]]), "1")
  check("anchored", re.match(pad .. "x1", [[^x]]), nil)
  check("lines", re.match(pad .. "\nx1", [[(?m)^x.]]), "x1")
  check("last", re.match(pad .. "x", [[x$]]), "x")
  check("only end", re.match(pad, "$"), "")
  check("first point", re.match(pad .. "x", [[\Gx]]), nil)
  check("everywhere", #re.match(pad, "é+"), 10000)
  for n = 0, 600 do check("at " .. n, re.match(("é"):rep(n) .. "x1", "x1"), "x1") end
  for n = 250, 260 do check("bytes " .. n, re.match(("\x80"):rep(n) .. "x1", "x1"), "x1") end
end

function T.re_quadratic()
  local text = ("a"):rep(400000)
  local begun = os.clock()
  fails(function() re.match(text, "a(?=a*?[bc])") end, "too many steps")
  fails(function() re.match(("ab"):rep(200000), "a.*b.*c|b.*d") end, "too many steps")
  check("in time", os.clock() - begun < 8)
end

function T.re_cache()
  for i = 1, 700 do check("n", re.match("x" .. i, "x(" .. i .. ")$"), tostring(i)) end
  local kept = re "k(e)pt"
  for i = 1, 300 do re.match("", "p" .. i) end
  collectgarbage()
  check("kept", kept:match "kept", "e")
end

function T.json_round_trip()
  local function round(text, want) check(text, json.encode(json.decode(text)), want or text) end
  round "[]"
  round "{}"
  round '{"a":[1,2.5,"x",true,false,null,{}],"b":[[]]}'
  round('[1e2,1E+2,-0.0,0,-0]', "[100.0,100.0,-0.0,0,0]")
  round "9223372036854775807"
  round "-9223372036854775808"
  round "0.1"
  round "1e+300"
  round "[1.7976931348623157e+308,123456789.123]"
  round('"\\u00e9\\ud83d\\ude00\\n\\u0000\\/"', '"é😀\\n\\u0000/"')
  round(' \t\r\n[ 1 , 2 ] \n', "[1,2]")
  round '"\\b\\t\\n\\u000b\\f\\r\\u007f"'
  check("integer", math.type(json.decode "1"), "integer")
  check("float", math.type(json.decode "1.0"), "float")
  check("too large", math.type(json.decode "92233720368547758080"), "float")
  check("null", json.decode "null" == json.null)
  check("sorted", json.encode { b = 1, a = 2, c = 3 }, '{"a":2,"b":1,"c":3}')
  check("array", json.encode(json.array {}), "[]")
  check("nil", json.encode(nil), "null")
  check("list", json.encode(make_list {}), "[]")
  check("list", json.encode(make_list { "a" }), '["a"]')
end

function T.json_refused()
  for _, text in ipairs { "", " ", "[1,]", "[1 2]", "{a:1}", "{'a':1}", '{"a":1,}', '{"a" 1}', '{"a":1,"a":2}', "01", "1.", ".5", "+1", "-",
    "1e", "NaN", "Infinity", "nul", "tru", "[", "{", '"', '"\\', '"\\x"', '"\\u12"', '"\\ud800"', '"\\udc00"', '"\\ud800\\u0041"',
    '"a\nb"', '"\xff"', "1 2", "// x\n1", "[1]]", "1e999", ("[") : rep(1000), '"\1"', "\xef\xbb\xbf1", "{" .. ('"a":{'):rep(500) } do
    local value, sentence, code = json.decode(text)
    check("refused " .. text:sub(1, 20), value, nil)
    check("sentence", sentence:sub(1, 4), "JSON")
    check("code", code, "syntax")
  end
  local _, where = json.decode '{\n  "a": 1,\n  b\n}'
  check("place", where, "JSON, line 3, column 3: a key in quotes expected")
  check("depth", json.decode(("["):rep(128) .. ("]"):rep(128)) ~= nil)
  check("deeper", json.decode(("["):rep(129) .. ("]"):rep(129)), nil)
  fails(function() json.decode(5) end, "string expected")
end

function T.json_cannot()
  fails(function() json.encode(print) end, "no way to write a function")
  fails(function() json.encode { 1, nil, 3 } end, "json.encode")
  fails(function() json.encode { 1, x = 2 } end, "neither an array")
  fails(function() json.encode { [1.5] = 2 } end, "neither an array")
  fails(function() json.encode(0 / 0) end, "NaN")
  fails(function() json.encode(1 / 0) end, "infinite")
  fails(function() json.encode "\xff" end, "not UTF-8")
  local ring = {}
  ring.x = ring
  fails(function() json.encode(ring) end, "in a ring")
  fails(function() json.encode() end, "value expected")
end

function T.json_cut_at_every_byte()
  local text = '{"a":[1,2.5e3,"x\\u00e9\\n",true,null],"b":{"c":-1}}'
  for i = 0, #text - 1 do check("cut " .. i, json.decode(text:sub(1, i)), nil) end
  check("whole", json.decode(text).b.c, -1)
end

function T.csv()
  local rows = csv.parse 'name,n\r\n"a, ""b""",1\r\n"two\nlines",2\nlast,3'
  check("rows", #rows, 3)
  check("quoted", rows[1].name, 'a, "b"')
  check("lines", rows[2].name, "two\nlines")
  check("last", rows[3].n, "3")
  check("headings", rows.headings, { "name", "n" })
  check("bom", csv.parse("\xef\xbb\xbfa\n1\n")[1].a, "1")
  check("short", csv.parse("a,b\n1\n")[1].b, "")
  check("blank lines", #csv.parse "a,b\n\n1,2\n\n", 1)
  check("trailing empty", csv.parse("a,b\n1,\n")[1].b, "")
  check("separator", csv.parse("a;b\n1,5;2\n", { separator = ";" })[1].a, "1,5")
  check("odd separator", csv.parse("a]b\n1]2\n", { separator = "]" })[1].b, "2")
  check("caret", csv.parse("a^b\n1^2\n", { separator = "^" })[1].b, "2")
  check("empty", #csv.parse "", 0)
  for text, sentence in pairs { ['a\n"x'] = "line 2: a quoted field has no end", ["a\n1,2\n"] = "line 2: 2 fields where there are 1 headings",
    ['a\n"x"y\n'] = "line 2: text behind", ["a,a\n"] = "twice", ["a,\n"] = "heading 2 is empty", ['a\n"p\nq"\n1,2'] = "line 4" } do
    local r, s, code = csv.parse(text)
    check("no rows", r, nil)
    check(text, s:find(sentence, 1, true) ~= nil)
    check("code", code, "syntax")
  end
  fails(function() csv.parse("a", { seperator = ";" }) end, "did you mean 'separator'?")
  fails(function() csv.parse("a", { separator = ";;" }) end, "one character")
  fails(function() csv.parse("a", ";") end, "csv: the options are a table")
  local r, s, code = csv.read "tests/lua/none.csv"
  check("absent", r, nil)
  check("sentence", s:find "reading tests/lua/none.csv", 1)
  check("code", code, "io")
end

function T.sizes_and_spans()
  check("number", size_of(5), 5)
  check("float", size_of(1e6), 1000000)
  check("kB", size_of "20 kB", 20000)
  check("MB", size_of "5 MB", 5000000)
  check("MiB", size_of "5 MiB", 5242880)
  check("half", size_of "1.5MiB", 1572864)
  check("bytes", size_of "7 bytes", 7)
  check("huge", size_of "2 TiB", 2199023255552)
  for _, bad in ipairs { "5", "5 M", "MB", "-5 MB", "5 mbytes", "1e5 B", "0x5 B", "", "5..5 MB", "9999999999 TB", "5. MB" } do
    fails(function() size_of(bad) end, "is no size")
  end
  fails(function() size_of(-1) end, "0 or more")
  fails(function() size_of(0 / 0) end, "0 or more")
  fails(function() size_of {} end, "is no size")
  check("days", span_of "30 days", 2592000)
  check("seconds", span_of(90), 90)
  fails(function() span_of "soon" end, "is no time span")
  fails(function() span_of(-1) end, "0 or more")
end

function T.log_is_there()
  check("info", log.info("x", 1, nil, {}), nil)
  for i = 1, 5000 do log.info("flood") end
end

return T
