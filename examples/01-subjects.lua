-- Every subject. The first lesson: a script is what happens to a message; here it is one line.
--   mailmill examples/01-subjects.lua            (or, without a file: mailmill -e 'print(m.subject)' old.mbox)

mail.source "mail/sample.mbox"          -- names start at the script; sources named on the command line replace this one

mail.on_message(function(m)
  print(m.subject)                      -- decoded to UTF-8, never nil
end)
