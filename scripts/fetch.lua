-- POP3 to Maildir: what is new on a server, delivered into a folder.
local o = mail.options {
  about = "Fetches new mail from a POP3 server into a Maildir. The password is asked for, unless an option says where it is.",
  sources = false,
  { "host", value = "NAME", required = true, help = "the server" },
  { "user", short = "u", value = "NAME", required = true, help = "the login" },
  { "port", type = "integer", help = "995 with implicit TLS, else 110" },
  { "tls", type = "choice", choices = { "implicit", "starttls", "none" }, default = "implicit", help = "how the link is encrypted" },
  { "plaintext-password", help = "with --tls none: let the password travel unencrypted" },
  { "ca-file", type = "path", value = "FILE", help = "a private CA" },
  { "password-command", value = "CMD", help = 'words of a command that prints it: "pass show mail"' },
  { "password-env", value = "VAR", help = "the environment variable it is in" },
  { "password-file", type = "path", value = "FILE", help = "the file (mode 0600) it is in" },
  { "output", short = "o", type = "path", default = "Mail", value = "DIR", help = "the root of the Maildir folders" },
  { "folder", short = "f", default = "Inbox", value = "NAME", help = "the folder" },
  { "delete", help = "delete from the server what has been delivered" },
  { "keep", value = "AGE", help = 'delete it only when it is older: "14 days"' },
}

local function password()
  if o.password_command then
    local words = {}
    for word in o.password_command:gmatch("%S+") do words[#words + 1] = word end
    return secret.command(words)
  elseif o.password_env then
    return secret.env(o.password_env)
  elseif o.password_file then
    return secret.file(o.password_file)
  end
  return secret.prompt(("Password of %s at %s"):format(o.user, o.host))
end

mail.root(o.output)

local leave = true
if o.keep then leave = o.keep elseif o.delete then leave = false end

mail.account {
  name = o.user .. "@" .. o.host,
  host = o.host,
  port = o.port,
  user = o.user,
  password = password(),
  tls = o.tls,
  plaintext_password = o.plaintext_password,
  ca_file = o.ca_file,
  leave_on_server = leave,
  inbox = o.folder,
}
