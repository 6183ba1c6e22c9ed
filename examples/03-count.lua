-- How many messages by sender. Global names and locals outside the handler live as long as the run; mail.on_finish ends it.
--   mailmill examples/03-count.lua

mail.source "mail/sample.mbox"

local count, bytes = {}, {}

mail.on_message(function(m)
  local who = m.from.domain             -- an address is a string that also answers .user .detail .domain
  count[who] = (count[who] or 0) + 1
  bytes[who] = (bytes[who] or 0) + m.size
end)

mail.on_finish(function(run)
  local order = {}
  for who in pairs(count) do order[#order + 1] = who end
  table.sort(order, function(a, b)
    if count[a] ~= count[b] then return count[a] > count[b] end
    return a < b
  end)
  for _, who in ipairs(order) do print(("%3d  %6d bytes  %s"):format(count[who], bytes[who], who)) end
  print(("%d messages"):format(run.messages))
end)
