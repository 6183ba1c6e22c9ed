-- Every attachment to a file of its own: the number of the message, the number of the part.
local count = 0

mail.on_message(function(m)
  count = count + 1
  m.vars.number = count
  for part in m:attachments() do part:save "{vars.number}.{index}" end
end)
