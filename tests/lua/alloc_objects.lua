-- Runs again and again with the n-th allocation of Lua failing: every box must be closed, nothing may leak.
local m = message("From: a@b.org\nTo: c@d.org, e@f.org\nSubject: =?utf-8?q?x=C3=A9?=\nContent-Type: multipart/mixed; boundary=q\n\n--q\n\none\ntwo\n"
  .. "--q\nContent-Type: application/pdf; name=a.pdf\nContent-Disposition: attachment\n\n%PDF-1.4\n--q--\n", { account = "w" })
local out = {}
for x in m.to do for y in m.to do out[#out + 1] = x .. y end end
for line in m:parts()[1]:lines() do out[#out + 1] = line end
local r = m:attachments "*.pdf"[1]:reader()
out[#out + 1] = r:read(4)
out[#out + 1] = re.match("order 55", "order (\\d+)")
out[#out + 1] = json.encode(json.decode '{"a":[1,2,{"b":"\\u00e9"}]}')
out[#out + 1] = tostring(m:matches { from = "*@b.org", attachment = "*.pdf" })
out[#out + 1] = m.raw .. m.text .. m.sha256 .. #m.defects .. m:addresses "to"[1].addr
out[#out + 1] = ("grün"):contains "ÜN" and "y"
close(m)
