-- Who wrote, how much, what is attached: fields of a message, and the list of its attachments.
--   mailmill examples/02-table.lua

mail.source "mail/sample.mbox"

mail.on_message(function(m)
  local names = {}
  for part in m:attachments() do        -- what a person would call a file that someone sent
    names[#names + 1] = part.name or part.type
  end
  print(("%-30s %6d  %s"):format(m.from, m.size, table.concat(names, ", ")))
end)
