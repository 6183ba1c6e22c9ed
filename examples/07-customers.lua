-- A table decides: rows of a CSV file beside the script, by heading.
--   mailmill --root /tmp/out examples/07-customers.lua

mail.source "mail/inbox"                -- a folder of .eml files; an mbox, a Maildir or an account would do as well

local customers = {}
for _, row in ipairs(csv.read "07-customers.csv") do customers[row.domain] = row end

mail.on_message(function(m)
  local customer = customers[m.from.domain]
  if not customer then
    print("no customer: " .. m.from)
    return                              -- neither delivered nor discarded: in an archive it stays where it is
  end
  print(customer.name .. ": " .. m.subject)
  m:deliver(customer.folder)
end)
