-- Who wrote each message, what about, and what its parts are.
local count = 0

mail.on_message(function(m)
  count = count + 1
  print(("%d %s <%s> | %s"):format(count, m.from_name, m.from, m.subject))
  for part in m:parts() do
    print(("  %s %s %s %s"):format(part.type, part.charset or "-", part.disposition or "-", part.name or "-"))
  end
end)
