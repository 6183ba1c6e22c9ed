/* Patterns that are whole messages: everything a script can ask of one is asked. */
#include "tests/cost/cost.h"

#include <stdlib.h>

#include "core/mem.h"
#include "core/message.h"
#include "core/mime.h"

static struct message *message_of(struct str in)
{
        char *p = mem_alloc(in.n ? in.n : 1);
        struct origin o = { .source = STR("cost"), .folder = STR(""), .flags = STR("") };
        struct backing *b;
        struct message *m;
        struct err e;

        MUST(p);
        if (in.n)
                memcpy(p, in.p, in.n);
        b = backing_memory(p, in.n);
        MUST(b);
        m = message_new((struct range){ b, 0, in.n }, &o, &limits_default, &e);
        backing_unref(b);
        MUST(m && message_parse(m, &e));
        return m;
}

static void ask_bytes(struct part *p)
{
        char block[4096];
        struct err e;
        struct reader *r = part_open(p, &e);
        ssize_t n;

        MUST(r);
        while ((n = reader_read(r, block, sizeof block, &e)) > 0)
                ;
        MUST(n == 0);
        reader_close(r);
}

static void ask_part(struct part *p)
{
        struct str reason;

        part_path(p), part_type(p), part_charset(p), part_disposition(p), part_name(p), part_id(p), part_raw(p);
        part_field(p, STR("content-description"));
        part_attached(p, &reason);
        part_text(p);
        if (!part_is_container(p))
                ask_bytes(p);
}

static void ask_list(struct message *m, size_t list(struct message *m, struct part ***out))
{
        struct part **parts;
        size_t n = list(m, &parts);

        for (size_t i = 0; i < n; i++)
                ask_part(parts[i]);
}

static void ask_fields(struct message *m)
{
        static const char *const names[] = { "subject", "from", "to", "cc", "received", "x-a", "content-type", "x-none" };
        struct str *all;

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                message_field(m, str_of(names[i]));
                message_fields(m, str_of(names[i]), &all);
                message_addresses(m, str_of(names[i]));
        }
        message_ids(m, STR("references"), &all);
        message_ids(m, STR("in-reply-to"), &all);
        message_subject(m), message_date(m), message_received(m), message_envelope_to(m), message_id(m), message_list_id(m);
        message_received_count(m);
}

static void read_mail(struct str in)
{
        struct message *m = message_of(in);
        uint8_t identity[32];
        struct err e;
        size_t n;

        ask_fields(m);
        ask_list(m, message_leaves);
        ask_list(m, message_open_leaves);
        ask_list(m, message_attachments);
        message_text(m), message_html(m);
        MUST(message_identity(m, identity, &e));
        message_defects(m, &n);
        message_free(m);
}

/* The other reading of all of it, and of each leaf. */
static void read_other(struct str in)
{
        struct message *m = message_of(in);
        struct part **leaves;
        size_t n = message_leaves(m, &leaves);

        part_alternative(message_root(m));
        for (size_t i = 0; i < n; i++)
                part_alternative(leaves[i]);
        message_free(m);
}

/* The structure alone, a byte at a time. */
static void read_bytes(struct str in)
{
        struct mime_defects d = { 0 };
        struct arena *a = arena_new(0);
        struct mime_parser *p = mime_new(&limits_default, &d, a);

        MUST(a && p);
        for (size_t i = 0; i < in.n; i++)
                MUST(mime_feed(p, str_make(in.p + i, 1)));
        MUST(mime_end(p));
        arena_free(a);
}

#define MULTI "Content-Type: multipart/mixed; boundary=a\n\n"
#define FILE_OF(encoding) "Content-Type: application/x-a\nContent-Transfer-Encoding: " encoding "\n\n"
#define MAIL(name, n, head, unit, tail) { name, read_mail, n, { head, sizeof head - 1 }, { unit, sizeof unit - 1 }, { tail, sizeof tail - 1 }, NULL }
#define OTHER(name, n, head, unit, tail) { name, read_other, n, { head, sizeof head - 1 }, { unit, sizeof unit - 1 }, { tail, sizeof tail - 1 }, NULL }
#define BYTES(name, n, head, unit, tail) { name, read_bytes, n, { head, sizeof head - 1 }, { unit, sizeof unit - 1 }, { tail, sizeof tail - 1 }, NULL }

static void open_parts(struct buf *out, unsigned depth)
{
        cost_repeat(out, STR("Content-Type: multipart/mixed; boundary=\"b\1\"\n\n--b\1\n"), depth);
}

/* 60 boundaries are open, and every line could be one of them. */
static void almost_boundaries(struct buf *out, unsigned n)
{
        open_parts(out, 60);
        cost_repeat(out, STR("\n--b\n--bx\1\n--b1y\n"), n);
}

/* Each boundary begins with the one around it. */
static void prefixes(struct buf *out, unsigned n)
{
        struct buf name = BUF_INIT;

        for (unsigned i = 0; i < 60; i++) {
                MUST(buf_add_char(&name, 'a'));
                MUST(buf_printf(out, "Content-Type: multipart/mixed; boundary=%.*s\n\n--%.*s\n", STR_FMT(buf_str(&name)), STR_FMT(buf_str(&name))));
        }
        cost_repeat(out, STR("\n--aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"), n);
        buf_free(&name);
}

/* An HTML part that refers to n images, and these. */
static void images(struct buf *out, unsigned n)
{
        MUST(buf_add_str(out, STR("Content-Type: multipart/related; boundary=a\n\n--a\nContent-Type: text/html\n\n")));
        cost_repeat(out, STR("<img src=\"cid:i\1\">\n"), n);
        cost_repeat(out, STR("\n--a\nContent-Type: image/png; name=x\1.png\nContent-ID: <i\1>\n\nx\n"), n);
}

static void html_images_unnamed(struct buf *out, unsigned n) /* and none of the names is there */
{
        MUST(buf_add_str(out, STR("Content-Type: multipart/related; boundary=a\n\n--a\nContent-Type: text/html\n\n")));
        cost_repeat(out, STR("<img src=\"cid:i\1\">\n"), n);
        cost_repeat(out, STR("\n--a\nContent-Type: image/png; name=x\1.png\nContent-ID: <other\1>\nContent-Location: y\1\n\nx\n"), n);
}

static void many_htmls(struct buf *out, unsigned n)
{
        MUST(buf_add_str(out, STR("Content-Type: multipart/mixed; boundary=a\n\n")));
        cost_repeat(out, STR("\n--a\nContent-Type: text/html\n\n<img src=cid:a\1>x\n\n--a\nContent-Type: image/png\nContent-ID: <a\1>\n\nx\n"), n);
}

/* Names of fields that have one value under "times 33, add": Ez and FY, in every order. */
static void colliding_names(struct buf *out, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                for (unsigned bit = 0; bit < 16; bit++)
                        MUST(buf_add_str(out, i >> bit & 1 ? STR("Ez") : STR("FY")));
                MUST(buf_add_str(out, STR(": a\n")));
        }
        MUST(buf_add_str(out, STR("\nx\n")));
}

static void little_endian(struct buf *out, uint32_t value, unsigned bytes)
{
        for (unsigned i = 0; i < bytes; i++, value >>= 8)
                MUST(buf_add_char(out, (char)(value & 255)));
}

static void tnef_attribute(struct buf *out, char level, uint32_t id, struct str data)
{
        uint32_t sum = 0;

        MUST(buf_add_char(out, level));
        little_endian(out, id, 4);
        little_endian(out, (uint32_t)data.n, 4);
        MUST(buf_add_str(out, data));
        for (size_t i = 0; i < data.n; i++)
                sum += (uint8_t)data.p[i];
        little_endian(out, sum, 2);
}

static void tnef(struct buf *out, unsigned n)
{
        MUST(buf_add_str(out, STR("Content-Type: application/ms-tnef\n\n")));
        little_endian(out, 0x223e9f78, 4);
        little_endian(out, 1, 2);
        for (unsigned i = 0; i < n; i++) {
                tnef_attribute(out, 2, 0x00069002, STR("\1\0\0\0\0\0\0\0\0\0\0\0\0\0"));
                tnef_attribute(out, 2, 0x00018010, STR("a.txt\0"));
                tnef_attribute(out, 2, 0x0006800f, STR("data"));
        }
}

const struct pattern cost_mail[] = {
        MAIL("M01 nested multiparts", 100, "", "Content-Type: multipart/mixed; boundary=b\1\n\n--b\1\n", "x\n"),
        MAIL("M01 nested messages", 500, "", "Content-Type: message/rfc822\n\n", "x\n"),
        { .name = "M01 lines that are almost one of 60 boundaries", .read = read_mail, .n = 300, .make = almost_boundaries },
        MAIL("M02 empty parts", 1500, MULTI, "--a\n", ""),
        MAIL("M02 parts beyond the limit", 3000, MULTI, "--a\n\n", ""),
        MAIL("M02 small parts", 200, MULTI, "--a\n\nx\n", ""),
        MAIL("M02 small named parts", 100, MULTI, "--a\nContent-Disposition: attachment; filename=x\1.txt\n\nx\n", ""),
        MAIL("M02 parts of one name", 100, MULTI, "--a\nContent-Disposition: attachment; filename=x.txt\n\nx\n", ""),
        MAIL("M03 a long boundary", 4000, "Content-Type: multipart/mixed; boundary=", "a", "\n\n--a\n\nx\n"),
        MAIL("M04 boundary parameters", 400, "Content-Type: multipart/mixed", "; boundary=b\1", "\n\n--b0\n\nx\n"),
        MAIL("M05 Content-Type fields", 400, "", "Content-Type: text/plain; charset=c\1\n", "\nx\n"),
        MAIL("M06 odd transfer encodings", 400, "", "Content-Transfer-Encoding : base64\nContent-\n Transfer-Encoding: base64\n", "\nx\n"),
        MAIL("M07 comments in the transfer encoding", 8000, "Content-Transfer-Encoding: base64 ", "(", "\n\neA==\n"),
        MAIL("M08 base64 of padding", 8000, FILE_OF("base64"), "=", "\n"),
        MAIL("M08 base64, padded again and again", 2000, FILE_OF("base64"), "Zg==\n", ""),
        MAIL("M08 base64 in one line", 10000, FILE_OF("base64"), "Zm9v", ""),
        MAIL("M08 base64 garbage", 4000, FILE_OF("base64"), "Z!\n", ""),
        MAIL("M10 soft line breaks", 8000, FILE_OF("quoted-printable"), "=\n", ""),
        MAIL("M10 equals signs", 8000, FILE_OF("quoted-printable"), "=", ""),
        MAIL("M10 blanks before a line end that does not come", 10000, FILE_OF("quoted-printable"), " ", "x"),
        MAIL("M10 equals signs and blanks", 8000, FILE_OF("quoted-printable"), "= ", ""),
        MAIL("M11 equal boundaries, nested", 300, "", MULTI "--a\n", "x\n"),
        { .name = "M11 boundaries that begin with one another", .read = read_mail, .n = 300, .make = prefixes },
        MAIL("M12 blanks behind a boundary", 60000, MULTI "--a", " ", "\n\nx\n"),
        MAIL("M12 boundaries that are none", 150, MULTI, "--a-\n--a\tx\n", ""),
        MAIL("M13 a long epilogue", 2000, MULTI "--a\n\nx\n--a--\n", "begin 644 x\n--a\n", ""),
        MAIL("M14 carriage returns before the body", 12000, "Subject: a", "\r", "\n\nx\n"),
        MAIL("M15 NUL and CR between fields", 1000, "", "X-A: b\r\0\r", "\n\nx\n"),
        MAIL("M16 message/partial parts", 100, MULTI, "--a\nContent-Type: message/partial; id=x; number=\1\n\nx\n", ""),
        MAIL("M17 signed data that nests", 3000, "Content-Type: application/pkcs7-mime; smime-type=signed-data\n\n", "\x30\x80", ""),
        { .name = "M18 TNEF with many files", .read = read_mail, .n = 100, .make = tnef },
        MAIL("M19 begin lines", 2000, "\n", "begin 644 x\n", ""),
        MAIL("M19 uuencoded files", 80, "\n", "begin 644 x\1\n#0V%T\n`\nend\n", ""),
        MAIL("M19 begin lines, each with data", 500, "\n", "begin 644 x\n#0V%T\n", ""),
        MAIL("M19 one long uuencoded file", 500, "\nbegin 644 x\n", "M86)C9&5F9VAI:FML;6YO<'%R<W1U=G=X>7IA8F-D969G:&EJ:VQM;F]P<7)S\n", "`\nend\n"),
        MAIL("M21 empty lines", 8000, "", "\n", ""),
        MAIL("M21 carriage returns alone", 20000, "", "\r", ""),
        MAIL("M22 nested and cut off", 300, "", MULTI "--a\n", ""),
        BYTES("M23 a long line by bytes", 20000, "Subject: x\n\n", "a", ""),
        BYTES("M23 a long field by bytes", 20000, "Subject: ", "a", "\n\nx"),
        BYTES("M23 folds by bytes", 6000, "Subject: ", "\n a", "\n\nx"),
        BYTES("M23 parts by bytes", 400, MULTI, "--a\nX-A: b\n\nx\n", ""),
        OTHER("M04 two boundaries", 200, "Content-Type: multipart/mixed; boundary=a; boundary=b\n\n",
              "--a\nContent-Type: x/y\nContent-Type: y/z\n\nx\n--b\n\ny\n", ""),
        OTHER("M08 data behind padding", 200, MULTI, "--a\nContent-Transfer-Encoding: base64\n\neA==eA==\n", ""),
        { .name = "M images that the HTML refers to", .read = read_mail, .n = 100, .make = images },
        { .name = "M images that the HTML does not refer to", .read = read_mail, .n = 100, .make = html_images_unnamed },
        { .name = "M as many HTML parts as images", .read = read_mail, .n = 60, .make = many_htmls },
        MAIL("M alternatives", 100, "Content-Type: multipart/alternative; boundary=a\n\n", "--a\nContent-Type: text/html\n\n<p>x\n--a\n\nx\n", ""),
        MAIL("M encoded messages in parts", 100, MULTI, "--a\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogYQoKYgo=\n", ""),
        MAIL("M named text parts", 100, MULTI, "--a\nContent-Type: text/plain; name=a\1.txt\n\nx\n", ""),
        MAIL("M CRLF text", 4000, "Subject: a\r\n\r\n", "abc\r\n", ""),
        MAIL("M text in no charset", 6000, "Content-Type: text/plain; charset=x-unknown\n\n", "\xe4 \xc3\xa4", "\n"),
        MAIL("H01 header lines", 3000, "", "a:b\n", "\nx\n"),
        MAIL("H01 header lines beyond the limit", 12000, "", "a:b\n", "\nx\n"),
        MAIL("H02 a field folded again and again", 5000, "Subject: x", "\n b", "\n\nx\n"),
        MAIL("H02 a field longer than the limit", 8000, "Subject: x", "\n bcde", "\n\nx\n"),
        MAIL("H03 lines without a colon", 2000, "X-A: a\n", "no colon here\nFrom x\n", "\nx\n"),
        MAIL("H03 names in 8 bits", 1500, "", "\xe4 b : c\n", "\nx\n"),
        MAIL("H04 To fields", 300, "", "To: a\1@example.org\n", "\nx\n"),
        MAIL("H04 To fields beyond the limit", 3000, "", "To: a@b\n", "\nx\n"),
        MAIL("H04 addresses in one field", 400, "To: a@example.org", ",\n a\1@example.org", "\n\nx\n"),
        MAIL("H04 addresses beyond the limit", 5000, "To: a", ", a@b", "\n\nx\n"),
        MAIL("H13 a Message-ID of brackets", 6000, "Message-ID: ", "<", "\n\nx\n"),
        MAIL("H13 references", 1000, "References: ", "<a\1@b>\n ", "x\n\nx\n"),
        MAIL("H13 references without an end", 6000, "References: ", "<a ", "\n\nx\n"),
        MAIL("H14 Received fields", 250, "", "Received: from a by b; Mon, 23 Nov 2026 05:41:00 +0000\n", "\nx\n"),
        MAIL("H14 Received without dates", 800, "", "Received: from (((( by b ;;;;\n", "\nx\n"),
        MAIL("H15 names of fields, all different", 1500, "", "X-\1: a\n", "\nx\n"),
        { .name = "H15 names that collide", .read = read_mail, .n = 1500, .make = colliding_names },
        { .name = NULL },
};
