-- Another program reads an attachment: part:pipe gives it the decoded bytes and answers what it printed (a list of words, never a shell).
--   mailmill examples/10-reports.lua

mail.source "mail/sample.mbox"

mail.rule("DMARC", { from = "*dmarc*@*", attachment = { type = "application/zip" } }, function(m)
  for part in m:attachments "*.zip" do
    local xml = part:pipe { "python3", "-c", [[
import io, sys, zipfile
z = zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()))
sys.stdout.write(z.read(z.namelist()[0])[:1000000].decode())
]] }
    for row in xml:gmatch "<row>(.-)</row>" do
      local ip, n, verdict = row:match "<source_ip>(.-)</source_ip>.-<count>(%d+)</count>.-<disposition>(%a+)</disposition>"
      print(("%-15s %3d  %s"):format(ip, n, verdict))
    end
  end
end)
