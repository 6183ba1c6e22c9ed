-- Lists: `for x in list do` must be exact wherever a loop may stand.
local T = {}

local function walk(list)
  local out = {}
  for x in list do out[#out + 1] = x end
  return table.concat(out, " ")
end

function T.plain()
  local l = make_list { "a", "b", "c" }
  check("walk", walk(l), "a b c")
  check("again", walk(l), "a b c")
  check("length", #l, 3)
  check("index", l[2], "b")
  check("behind", l[4], nil)
  check("concat", table.concat(l, ","), "a,b,c")
  check("tostring", tostring(l), "a, b, c")
  check("empty", walk(make_list {}), "")
  local n = 0
  for i, x in ipairs(l) do n = n + i; check("ipairs", x, l[i]) end
  check("ipairs sum", n, 6)
  fails(function() return l.user end, "a list has no field 'user'")
end

function T.equal_elements()
  check("equal", walk(make_list { "a", "a", "b", "a", "a" }), "a a b a a")
  check("all equal", walk(make_list { 1, 1, 1 }), "1 1 1")
  check("false is an item", walk(make_list { "x" }), "x")
end

function T.nested_same_list()
  local l, out = make_list { "a", "a", "b" }, {}
  for x in l do for y in l do out[#out + 1] = x .. y end end
  check("one line", table.concat(out, " "), "aa aa ab aa aa ab ba ba bb")
  local n = 0
  for _ in l do
    for _ in l do
      for _ in l do n = n + 1 end
    end
  end
  check("three deep", n, 27)
end

function T.nested_break()
  local l, out = make_list { "a", "a", "b" }, {}
  for x in l do
    for y in l do
      out[#out + 1] = x .. y
      if #out % 2 == 0 then break end
    end
  end
  check("break inside", table.concat(out, " "), "aa aa aa aa ba ba")
  for x in l do if x == "a" then break end end
  check("after break", walk(l), "a a b")
end

function T.sequential_in_one_function()
  local l, n = make_list { "a", "a", "a" }, 0
  for _ in l do n = n + 1; if n == 2 then break end end
  for _ in l do n = n + 1 end
  for _ in l do n = n + 1 end
  check("sum", n, 8)
end

function T.return_inside()
  local l = make_list { "a", "a", "b", "c" }
  local function first_b()
    for x in l do if x == "b" then return x end end
  end
  for i = 1, 3 do check("found " .. i, first_b(), "b") end
  local seen = {}
  for x in l do seen[#seen + 1] = x .. first_b() end
  check("inside", table.concat(seen, " "), "ab ab bb cb")
end

function T.recursion()
  local l = make_list { "x", "x", "y" }
  local n = 0
  local function down(depth)
    if depth == 0 then n = n + 1 return end
    for _ in l do down(depth - 1) end
  end
  down(5)
  check("leaves", n, 3 ^ 5 // 1 | 0)
end

function T.deep_recursion_with_breaks()
  local l = make_list { "x", "x", "y" }
  local function down(depth)
    local n = 0
    for _ in l do
      n = n + 1
      if depth > 0 then n = n + down(depth - 1) end
      if n > 2 then break end
    end
    return n
  end
  check("sum", down(100), down(100))
  check("walk", walk(l), "x x y")
end

function T.marked_as_an_array()
  local l, none = make_list { "a", "b" }, make_list {}
  check("encoded", json.encode { json.array(l), json.array(none) }, '[["a","b"],[]]')
  check("still a list", walk(l), "a b")
end

function T.coroutines()
  local l = make_list { "a", "a", "b" }
  local function each() for x in l do coroutine.yield(x) end end
  local one, two, out = coroutine.wrap(each), coroutine.wrap(each), {}
  for _ = 1, 3 do out[#out + 1] = one(); out[#out + 1] = two() end
  check("side by side", table.concat(out, " "), "a a a a b b")
  out = {}
  for x in l do
    local inner = coroutine.wrap(each)
    out[#out + 1] = x .. inner() .. inner() .. inner()
  end
  check("inside", table.concat(out, " "), "aaab aaab baab")
  for _ = 1, 200 do coroutine.wrap(each)() end
  check("left behind", walk(l), "a a b")
end

function T.inside_pcall()
  local l, out = make_list { "a", "a", "b" }, {}
  for x in l do
    pcall(function()
      for y in l do
        out[#out + 1] = x .. y
        if y == "a" then error "stop" end
      end
    end)
  end
  check("error inside", table.concat(out, " "), "aa aa ba")
end

function T.goto_out()
  local l, n = make_list { "a", "a", "a" }, 0
  for _ in l do
    for _ in l do
      n = n + 1
      goto continue
    end
    ::continue::
  end
  check("continue", n, 3)
end

function T.two_lists()
  local a, b, out = make_list { "a", "a" }, make_list { "b", "b" }, {}
  for x in a do for y in b do for z in a do out[#out + 1] = x .. y .. z end end end
  check("count", #out, 8)
end

function T.control_variable_changed()
  local l, out = make_list { "a", "a", "b" }, {}
  for x in l do out[#out + 1] = x; x = nil end
  check("assigned", table.concat(out, " "), "a a b")
end

function T.changed_while_walked()
  local l, out = make_list { "a", "b", "c", "d" }, {}
  for x in l do
    out[#out + 1] = x
    if x == "b" then table.remove(l, 1) end
  end
  check("removed before", table.concat(out, " "), "a b c d")
end

function T.many_locals()
  local l, out = make_list { "a", "a", "b" }, {}
  local source = { "local l, out = ...\n" }
  for i = 1, 150 do source[#source + 1] = ("local v%d = %d\n"):format(i, i) end
  source[#source + 1] = "for x in l do local a, b = 1, 2 for y in l do out[#out + 1] = x .. y end end"
  load(table.concat(source))(l, out)
  check("pairs", #out, 9)
end

function T.through_a_closure()
  local l = make_list { "a", "a", "b" }
  local function tail(s, c) return l(s, c) end
  local function plain(s, c) local v = l(s, c) return v end
  local out = {}
  for x in tail do for y in tail do out[#out + 1] = x .. y end end
  check("tail call", table.concat(out, " "), "aa aa ab aa aa ab ba ba bb")
  out = {}
  for x in plain do out[#out + 1] = x end
  check("called", table.concat(out, " "), "a a b")
  local function twice(s, c) local v = plain(s, c) return v end
  fails(function() for x in twice do for y in twice do end end end, "use ipairs")
end

function T.by_hand()
  local l = make_list { "a", "b" }
  local first = select(2, pcall(l, nil, nil))
  check("first", first, "a")
  check("second", select(2, pcall(l, nil, "a")), "b")
  check("end", select(2, pcall(l, nil, "b")), nil)
  check("unknown", select(2, pcall(l, nil, "z")), nil)
end

function T.sort_comparator_and_metamethods()
  local l, keys = make_list { "b", "b", "a" }, { 3, 1, 2 }
  table.sort(keys, function(x, y)
    local n = 0
    for _ in l do n = n + 1 end
    check("in a comparator", n, 3)
    return x < y
  end)
  local t = setmetatable({}, { __index = function() local n = 0 for _ in l do n = n + 1 end return n end })
  for _ in l do check("in __index", t.x, 3) end
end

function T.vararg_function()
  local l = make_list { "a", "a", "b" }
  local function f(...)
    local out = {}
    for x in l do for y in l do out[#out + 1] = x .. y .. select("#", ...) end end
    return #out
  end
  check("vararg", f(1, 2, 3), 9)
  check("vararg", f(), 9)
end

return T
