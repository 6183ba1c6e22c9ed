-- What a person would call an attachment, case by case: what users of other programs complain about. Each case is a whole message; each line
-- that it is to give is "path type attached-or-not: reason", of the leaves with wrappers opened.
local T = {}

local function part(head, body) return head .. "\n\n" .. (body or "words") end

local function multipart(kind, ...)
  local boundary = kind .. #table.concat({ ... }) -- one of its own for each
  local out = { "Content-Type: multipart/" .. kind .. "; boundary=\"" .. boundary .. "\"\n" }
  for _, p in ipairs { ... } do out[#out + 1] = "--" .. boundary .. "\n" .. p end
  return table.concat(out, "\n") .. "\n--" .. boundary .. "--\n"
end

local function mixed(...) return multipart("mixed", ...) end

local plain, html = part "Content-Type: text/plain", part("Content-Type: text/html", "<p>words")
local function shows(id) return part("Content-Type: text/html", '<p>words<img alt="" src="cid:' .. id .. '">') end
local small, large = ("x"):rep(4000), ("x"):rep(200000)
local function pdf(more) return part("Content-Type: application/pdf" .. (more or ""), "%PDF-1.4") end
local function image(kind, name, more, body)
  return part("Content-Type: image/" .. kind .. (name and '; name="' .. name .. '"' or "") .. (more or ""), body or small)
end
local attachment, inline = "\nContent-Disposition: attachment", "\nContent-Disposition: inline"
local function id(s) return "\nContent-ID: <" .. s .. ">" end

-- The leaves as a person would have them: the attachments, and whatever else there is.
local function describe(m)
  local out = {}
  for p in m:parts() do out[#out + 1] = p.type .. (p.attached and " yes: " or " no: ") .. p.reason end
  for p in m:attachments() do
    local listed = false
    for q in m:parts() do listed = listed or q == p end
    if not listed then out[#out + 1] = p.type .. " opened: " .. p.reason end
  end
  return table.concat(out, "\n")
end

local cases = {}
local function case(name, text, ...) cases[#cases + 1] = { name, text, table.concat({ ... }, "\n") } end

local TEXT, HTML = "text/plain no: text", "text/html no: text"

-- Apple Mail
case("inline PDF between html", mixed(html, pdf("; name=a.pdf" .. inline .. "; filename=a.pdf"), html), HTML, "application/pdf yes: named", HTML)
case("inline PDF without a name", mixed(plain, pdf(inline), plain), TEXT, "application/pdf yes: not text", TEXT)
case("PDF that the html refers to by cid",
  multipart("related", part("Content-Type: text/html", '<a href="cid:p@x">see</a>'), pdf("; name=a.pdf" .. inline .. id "p@x")), HTML, "application/pdf yes: named")
case("PDF shown as an object by cid",
  multipart("related", part("Content-Type: text/html", '<object data="cid:p@x"></object>'), pdf("; name=a.pdf" .. id "p@x")), HTML, "application/pdf yes: named")
case("photograph in the text", multipart("related", shows "i@x", image("jpeg", "IMG_1.jpeg", inline .. "; filename=IMG_1.jpeg" .. id "i@x", large)), HTML,
  "image/jpeg yes: photo shown by the html")
case("html alternative that holds the files",
  multipart("alternative", plain, mixed(html, pdf("; name=a.pdf" .. inline), html)), "text/plain no: alternative", HTML, "application/pdf yes: named", HTML)
case("AppleDouble", mixed(plain, multipart("appledouble", part "Content-Type: application/applefile; name=a.doc",
  part "Content-Type: application/msword; name=a.doc")), TEXT, "application/applefile no: resource fork", "application/msword yes: named")
case("AppleDouble with its name at the other half", mixed(plain, multipart("appledouble", part "Content-Type: application/applefile; name=a.doc",
  part "Content-Type: application/msword")), TEXT, "application/applefile no: resource fork", "application/msword yes: named")
case("AppleDouble without a name", mixed(plain, multipart("appledouble", part "Content-Type: application/applefile",
  part "Content-Type: application/msword")), TEXT, "application/applefile no: resource fork", "application/msword yes: not text")

-- Logos in signatures
case("logo shown, sent as an attachment", multipart("related", shows "l@x", image("png", "logo.png", attachment .. "; filename=logo.png" .. id "l@x")), HTML,
  "image/png no: shown by the html")
case("logo shown by Outlook", multipart("related", shows "image001.png@01D9.1", image("png", "image001.png", id "image001.png@01D9.1")), HTML,
  "image/png no: shown by the html")
case("logo with an escaped id", multipart("related", shows "a%2Bb@x", image("png", "logo.png", id "a+b@x")), HTML, "image/png no: shown by the html")
case("logo that a reply no longer shows", mixed(plain, image("png", "image001.png", attachment .. "; filename=image001.png")), TEXT,
  "image/png no: small picture of the text")
case("logo with an id that nothing shows", multipart("related", html, image("gif", "brand.gif", inline .. id "b@x")), HTML,
  "image/gif no: small picture of the text")
case("tracking pixel", multipart("related", html, image("gif", nil, id "p@x", "GIF89a")), HTML, "image/gif no: small picture of the text")
case("screenshot called image001.png that nothing shows", mixed(plain, image("png", "image001.png", attachment, large)), TEXT,
  "image/png yes: declared an attachment")
case("small picture sent by Gmail", mixed(plain, image("png", "icon.png", attachment .. "; filename=icon.png" .. id "f_kx1")), TEXT,
  "image/png yes: declared an attachment")
case("small picture attached", mixed(html, image("png", "icon.png", attachment)), HTML, "image/png yes: declared an attachment")
case("logo by Content-Location",
  multipart("related", part("Content-Type: text/html", '<img SRC="http://x.org/l.gif">'), image("gif", nil, "\nContent-Location: http://x.org/l.gif")), HTML,
  "image/gif no: shown by the html")
case("logo typed as bytes", multipart("related", shows "l@x", part('Content-Type: application/octet-stream; name="image001.png"' .. id "l@x")), HTML,
  "application/octet-stream no: shown by the html")
case("style sheet of the html", multipart("related", part("Content-Type: text/html", '<link href="cid:s@x">'), part("Content-Type: text/css" .. id "s@x")), HTML,
  "text/css no: shown by the html")
case("leftover of Word",
  multipart("related", part("Content-Type: text/html", '<link href="cid:o@x">'), part("Content-Type: application/x-mso; name=oledata.mso" .. id "o@x")), HTML,
  "application/x-mso no: shown by the html")
case("large picture shown, no photograph", multipart("related", shows "l@x", image("png", "banner.png", inline .. id "l@x", large)), HTML,
  "image/png no: shown by the html")
case("jpg inline with a name and no html", mixed(plain, image("jpeg", "beach.jpg", inline .. "; filename=beach.jpg")), TEXT, "image/jpeg yes: named")
case("picture without a name and no html", mixed(plain, image("jpeg", nil)), TEXT, "image/jpeg yes: not text")

-- Messages in messages
case("unnamed message", mixed(plain, part("Content-Type: message/rfc822", mixed(plain, pdf(attachment .. "; filename=in.pdf")))), TEXT, TEXT,
  "application/pdf yes: declared an attachment")
case("forwarded as an attachment", mixed(plain, part('Content-Type: message/rfc822; name="Fwd.eml"' .. attachment, part("Subject: in\n" .. plain))), TEXT, TEXT)
case("unnamed message in base64",
  mixed(plain, part("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64",
    "Q29udGVudC1UeXBlOiBhcHBsaWNhdGlvbi9wZGY7IG5hbWU9aW4ucGRmCgolUERG")), TEXT, "message/rfc822 yes: not text", "application/pdf opened: named")
case("bounce", multipart("report", plain, part "Content-Type: message/delivery-status", part("Content-Type: message/rfc822", plain)), TEXT,
  "message/delivery-status no: report", TEXT)
case("bounce whose report is declared an attachment",
  multipart("report", plain, part('Content-Type: message/delivery-status; name="details.txt"' .. attachment), part "Content-Type: text/rfc822-headers"), TEXT,
  "message/delivery-status no: report", "text/rfc822-headers no: report")
case("receipt", multipart("report", plain, part "Content-Type: message/disposition-notification"), TEXT, "message/disposition-notification no: report")
case("digest", multipart("digest", part("", plain), part("", plain)), TEXT, TEXT)

-- Texts
case("text with a name", mixed(plain, part "Content-Type: text/plain; name=notes.txt"), TEXT, "text/plain yes: named")
case("text with a name, inline", mixed(plain, part("Content-Type: text/plain" .. inline .. "; filename=notes.txt")), TEXT, "text/plain yes: named")
case("text declared an attachment", mixed(plain, part("Content-Type: text/plain" .. attachment)), TEXT, "text/plain yes: declared an attachment")
case("text behind a picture, as Exchange has it",
  mixed(plain, image("jpeg", "a.jpg", inline .. "; filename=a.jpg"), part('Content-Type: text/plain; name="ATT00001.txt"' .. attachment .. "; filename=ATT00001.txt")), TEXT,
  "image/jpeg yes: named", "text/plain no: piece of the text")
case("html behind it", mixed(plain, part('Content-Type: text/html; name="ATT00002.htm"' .. attachment)), TEXT, "text/html no: piece of the text")
case("bytes called ATT00003.bin", mixed(plain, part('Content-Type: application/octet-stream; name="ATT00003.bin"' .. attachment)), TEXT,
  "application/octet-stream yes: declared an attachment")
case("footer of a mailing list", mixed(plain, part("Content-Type: text/plain" .. inline, "_____\nlist@example.org")), TEXT, TEXT)
case("footer of Sympa", mixed(plain, part 'Content-Type: text/plain; name="message-footer.txt"'), TEXT, "text/plain no: piece of the text")
case("body with a name", part "Content-Type: text/plain; name=mail.txt", TEXT)
case("alternative with names", multipart("alternative", part "Content-Type: text/plain; name=m.txt", part "Content-Type: text/html; name=m.html"),
  "text/plain no: alternative", "text/html no: alternative")
case("html as an attachment", mixed(plain, part("Content-Type: text/html" .. attachment .. "; filename=page.html", "<p>x")), TEXT,
  "text/html yes: declared an attachment")
case("html behind the text", mixed(plain, html), TEXT, HTML)
case("table without a name", mixed(plain, part "Content-Type: text/csv"), TEXT, "text/csv yes: not text")

-- Invitations
local invitation = "text/calendar; method=REQUEST; charset=utf-8"
case("invitation", multipart("alternative", plain, html, part("Content-Type: " .. invitation)), "text/plain no: alternative", "text/html no: alternative",
  "text/calendar no: alternative")
case("invitation with a name", multipart("alternative", plain, part("Content-Type: " .. invitation .. "; name=meeting.ics")), "text/plain no: alternative",
  "text/calendar no: alternative")
case("invitation of Google", mixed(multipart("alternative", plain, html, part("Content-Type: " .. invitation)),
  part("Content-Type: application/ics; name=invite.ics" .. attachment .. "; filename=invite.ics")), "text/plain no: alternative", "text/html no: alternative",
  "text/calendar no: alternative", "application/ics yes: declared an attachment")
case("nothing but an invitation", part("Content-Type: " .. invitation), "text/calendar yes: not text")
case("file in the alternative", multipart("alternative", plain, pdf "; name=a.pdf"), "text/plain no: alternative", "application/pdf yes: named")

-- Reports about mail
case("DMARC as bytes", mixed(plain, part 'Content-Type: application/octet-stream; name="google.com!example.org!1!2.xml.gz"'), TEXT,
  "application/octet-stream yes: named")
case("DMARC as text", part 'Content-Type: text/plain; name="google.com!example.org!1!2.xml.gz"', "text/plain yes: named")
case("DMARC as text in an alternative", multipart("alternative", plain, part 'Content-Type: text/plain; name="r.zip"'), "text/plain no: alternative",
  "text/plain yes: named")
case("DMARC and nothing else", part "Content-Type: application/gzip", "application/gzip yes: not text")
case("abuse report", multipart("report", plain, part "Content-Type: message/feedback-report", part("Content-Type: message/rfc822", plain)), TEXT,
  "message/feedback-report no: report", TEXT)

-- Signatures and keys
case("PGP", multipart("signed", plain, part "Content-Type: application/pgp-signature; name=signature.asc"), TEXT, "application/pgp-signature no: signature")
case("S/MIME", multipart("signed", plain, part("Content-Type: application/x-pkcs7-signature; name=smime.p7s" .. attachment)), TEXT,
  "application/x-pkcs7-signature no: signature")
case("S/MIME as bytes", mixed(plain, part("Content-Type: application/octet-stream; name=smime.p7s" .. attachment)), TEXT, "application/octet-stream no: signature")
case("signature of a file", mixed(plain, part "Content-Type: application/zip; name=a.zip", part("Content-Type: application/pgp-signature; name=a.zip.sig" .. attachment)),
  TEXT, "application/zip yes: named", "application/pgp-signature yes: declared an attachment")
case("key", mixed(plain, part("Content-Type: application/pgp-keys; name=0x1.asc" .. attachment)), TEXT, "application/pgp-keys yes: declared an attachment")
case("encrypted", multipart("encrypted", part "Content-Type: application/pgp-encrypted", part("Content-Type: application/octet-stream; name=encrypted.asc" .. inline)),
  "application/pgp-encrypted no: signature", "application/octet-stream yes: named")
case("file in the place of a signature", multipart("signed", plain, pdf("; name=a.pdf" .. attachment)), TEXT, "application/pdf yes: declared an attachment")

-- The rest
case("vCard", mixed(plain, part "Content-Type: text/x-vcard; name=ann.vcf"), TEXT, "text/x-vcard yes: named")
case("vCard without a name", mixed(plain, part "Content-Type: text/vcard"), TEXT, "text/vcard yes: not text")
case("bytes without a name", mixed(plain, part "Content-Type: application/octet-stream"), TEXT, "application/octet-stream yes: not text")
case("nothing without a name", mixed(plain, part("Content-Type: application/octet-stream", "")), TEXT, "application/octet-stream no: empty")
case("empty file", mixed(plain, part("Content-Type: application/octet-stream; name=empty.bin", "")), TEXT, "application/octet-stream yes: named")
case("layout of a picture message", multipart("related", part "Content-Type: application/smil; name=a.smil", image("jpeg", "a.jpg", "", large)),
  "application/smil no: layout", "image/jpeg yes: named")
case("kept elsewhere", mixed(plain, part("Content-Type: message/external-body; access-type=url; name=a.ps", "Content-Type: a/b\n")), TEXT,
  "message/external-body no: kept elsewhere")
case("uuencoded in the text", part("Content-Type: text/plain", "see\nbegin 644 cat.txt\n#0V%T\n`\nend\n"), TEXT, "application/octet-stream opened: sent in a wrapper")
case("broken winmail.dat", mixed(plain, part("Content-Type: application/ms-tnef; name=winmail.dat", "no TNEF")), TEXT, "application/ms-tnef yes: named")
case("winmail.dat", mixed(plain, part("Content-Type: application/octet-stream; name=winmail.dat\nContent-Transfer-Encoding: base64", [[
eJ8+IgEAAgKQBgAOAAAAAQAAAAAAAAAAAAAAAAABAAIQgAEACwAAAC4uL2EKYi50eHQA5gICD4AG
AAUAAABmaXJzdCgC]])), TEXT, "application/octet-stream yes: named", "application/octet-stream opened: sent in a wrapper")

function T.what_a_person_would_say()
  check("cases", #cases >= 60)
  for _, c in ipairs(cases) do
    local m = message(c[2])
    check(c[1], describe(m), c[3])
    close(m)
  end
end

function T.sizes_of_pictures()
  local function is(n, name, more) return message(mixed(html, image("png", name, more, ("x"):rep(n)))):parts()[2].reason end
  check("up to 6 KiB", is(6144, "image001.png"), "small picture of the text")
  check("above", is(6145, "image001.png"), "named")
  check("other words", is(100, "imagery.png"), "named")
  check("few digits", is(100, "image01.png"), "named")
  local function photo(n) return message(multipart("related", shows "i@x", image("jpeg", "i.jpg", id "i@x", ("x"):rep(n)))):parts()[2].attached end
  check("decoration", photo(100 * 1024 - 1), false)
  check("photograph", photo(100 * 1024), true)
end

return T
