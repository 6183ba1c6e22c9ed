-- What examples/demo.sh runs: a POP3 account, three rules, and options of its own.
local o = mail.options {
  about = "Fetches the sample mail and files it.",
  sources = false,
  { "port", type = "integer", required = true, help = "of the POP3 server on this machine" },
  { "output", short = "o", type = "path", default = ".", value = "DIR", help = "where everything goes" },
}

mail.root(o.output)
mail.timezone "UTC"
mail.account {
  name = "demo",
  host = "127.0.0.1",
  port = o.port,
  user = "mailmill",
  password = secret.env "DEMO_PASSWORD",
  tls = false,                          -- without TLS only because it never leaves this machine; the account has to say so twice
  plaintext_password = true,
}
mail.smarthost { host = "127.0.0.1", port = 9, from = "me@example.org" }  -- where nothing listens: the demo sends no mail to anybody

mail.rule("Spam", { header = { ["X-Spam-Flag"] = "yes" } }, function(m)
  m:discard()
  m:stop()
end)

mail.rule("Invoices", { from = { "*@billing.example.com", "*@shop.example" } }, function(m)
  for part in m:attachments "*.pdf" do
    if not mail.seen(part) then part:save "invoices/{date:%Y-%m}/{from.domain}/{name}" end
  end
  m:deliver "Archive/Billing"
end)

mail.rule("Urgent", { subject = "urgent*" }, function(m)
  m:forward "oncall@example.org"        -- and it is kept as well: neither delivered nor discarded, it goes to the inbox
end)
