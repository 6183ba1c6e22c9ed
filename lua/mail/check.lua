-- What is wrong with a script, found without running it.
local check = {}

function check.run(units)
  local problems = {}
  for _, unit in ipairs(units) do
    local text = unit.text:gsub("^\xef\xbb\xbf", ""):gsub("^#[^\n]*", "")
    local ok, why = load(text, (unit.action and "=" or "@") .. unit.name, "t")
    if not ok then problems[#problems + 1] = why end
  end
  return problems
end

return check
