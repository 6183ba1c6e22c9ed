#include "tests/unit/test.h"

#include "core/buf.h"
#include "core/compose.h"
#include "core/mem.h"

static struct err e;
static struct arena *a;

static struct message *open_message(struct str s)
{
        struct origin o = { .source = STR("test"), .fetched = 1000 };
        struct backing *b = backing_memory(mem_dup(s.p ? s.p : "", s.n), s.n);
        struct message *m = message_new((struct range){ b, 0, s.n }, &o, &limits_default, &e);

        backing_unref(b);
        return m;
}

/* All of it, read in pieces of `step` bytes. */
static struct buf read_all(struct mail_stream *s, size_t step)
{
        struct feed f = mail_stream_feed(s);
        struct buf b = BUF_INIT;
        char block[4096];
        ssize_t n;

        while ((n = f.fill(f.ctx, block, step, &e)) > 0)
                buf_add(&b, block, (size_t)n);
        if (n < 0)
                printf("reading: %s\n", e.text), test_bad++;
        return b;
}

/* The same however it is read, also a second time; closes the stream. */
static struct buf read_thrice(struct mail_stream *s)
{
        struct buf b = read_all(s, 4096), one = read_all(s, 1), some = read_all(s, 57);

        CHECK_BYTES(buf_str(&one), buf_str(&b));
        CHECK_BYTES(buf_str(&some), buf_str(&b));
        buf_free(&one);
        buf_free(&some);
        mail_stream_close(s);
        return b;
}

/* No line over 76 columns in what we wrote ourselves, no CR. */
static bool is_tidy(struct str s)
{
        bool ok = str_find(s, '\r') == s.n;

        while (s.n > 0) {
                struct str line = str_take(&s, '\n');
                if (line.n > 76)
                        printf("%zu columns: %.*s\n", line.n, STR_FMT(line)), ok = false;
        }
        return ok;
}

static const struct str friend[] = { { "friend@example.org", 18 } };

static struct compose base(int how, struct message *m)
{
        struct compose c = { .original = m, .from = STR("Me Myself <me@example.com>"), .to = friend, .to_n = 1,
                             .action = STR("00112233445566778899aabbccddeeff"), .hostname = STR("host.example"), .date = 1795412460 };

        *(int *)(void *)&c.how = how;
        a = a ? a : arena_new(0);
        return c;
}

static struct buf composed(const struct compose *c)
{
        struct mail_stream *s = compose(c, a, &e);
        struct buf none = BUF_INIT;

        if (s)
                return read_thrice(s);
        printf("compose: %s\n", e.text), test_bad++;
        return none;
}

static struct str decoded(struct part *p)
{
        struct reader *r = part_open(p, &e);
        struct buf b = BUF_INIT;
        struct str s;
        char block[1000];
        ssize_t n;

        while (r && (n = reader_read(r, block, sizeof block, &e)) > 0)
                buf_add(&b, block, (size_t)n);
        reader_close(r);
        s = arena_str(a, b.n ? buf_str(&b) : STR(""));
        buf_free(&b);
        return s;
}

static struct str field_of(struct message *m, const char *name)
{
        return message_field(m, str_of(name));
}

/* ---- originals ---- */

#define PNG "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
#define TWO_FILES                                                                                                             \
        "From: Ann <ann@example.net>\nTo: me@example.com\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nMessage-ID: <orig@x>\n"       \
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"                                                    \
        "--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nSch=C3=B6n.\n"          \
        "--b\nContent-Type: image/png; name=dot.png\nContent-Disposition: attachment; filename=dot.png\n"                     \
        "Content-Transfer-Encoding: base64\n\n" PNG "\n"                                                                      \
        "--b\nContent-Type: text/plain; charset=iso-8859-1\nContent-Disposition: attachment; filename*=utf-8''%C3%A4%20b.txt\n" \
        "Content-Transfer-Encoding: quoted-printable\n\nZeile =E4\n=20x=00y\n--b--\n"

/* The attachments of both, in order, bit for bit, with their names. */
static void same_attachments(struct message *was, struct message *is)
{
        struct part **x, **y;
        size_t n = message_attachments(was, &x), k = message_attachments(is, &y);

        CHECK(n == k);
        for (size_t i = 0; i < n && i < k; i++) {
                CHECK_BYTES(decoded(y[i]), decoded(x[i]));
                CHECK_BYTES(part_name(y[i]), part_name(x[i]));
                CHECK_BYTES(part_type(y[i]), part_type(x[i]));
        }
}

/* ---- forwards ---- */

TEST(new_mail)
{
        struct compose c = base(COMPOSE_NEW, NULL);
        struct buf b;
        struct message *m;
        const struct str cc[] = { STR("\"Doe, J.\" <j@x.org>"), STR("k@x.org") };

        c.subject = STR("hello");
        c.text = STR("one\n.two\nFrom three");
        c.cc = cc, c.cc_n = 2;
        c.bcc = friend, c.bcc_n = 1;
        c.in_reply_to = STR("<a@b>"), c.references = STR("<a@b> <c@d>"), c.reply_to = STR("else@x.org");
        b = composed(&c);
        CHECK(is_tidy(buf_str(&b)));
        m = open_message(buf_str(&b));
        CHECK_STR(field_of(m, "Date"), "Mon, 23 Nov 2026 05:41:00 +0000");
        CHECK_STR(field_of(m, "From"), "Me Myself <me@example.com>");
        CHECK_STR(field_of(m, "To"), "friend@example.org");
        CHECK_STR(field_of(m, "Cc"), "\"Doe, J.\" <j@x.org>, k@x.org");
        CHECK(!field_of(m, "Bcc").p);
        CHECK_STR(field_of(m, "Reply-To"), "else@x.org");
        CHECK_STR(message_subject(m), "hello");
        CHECK_STR(field_of(m, "In-Reply-To"), "<a@b>");
        CHECK_STR(field_of(m, "References"), "<a@b> <c@d>");
        CHECK_STR(field_of(m, "X-Mailmill-Action"), "00112233445566778899aabbccddeeff");
        CHECK(str_ends(message_id(m), STR("@host.example")));
        CHECK_STR(message_text(m), "one\n.two\nFrom three\n");
        CHECK_STR(part_field(message_root(m), STR("Content-Transfer-Encoding")), "7bit");
        message_free(m);
        buf_free(&b);
}

TEST(new_mail_with_words_of_all_kinds)
{
        static const char *const texts[] = { "", "\n", "Gr\xc3\xbc\xc3\x9f" "e\naus K\xc3\xb6ln\n", "no end", "cr\rin the middle\n", "\xf0\x9f\x98\x80", "caf\xc3\xa9" };
        struct buf longest = BUF_INIT;

        for (int i = 0; i < 3000; i++)
                buf_add_char(&longest, 'x');
        for (size_t i = 0; i <= sizeof texts / sizeof *texts; i++) {
                struct str text = i < sizeof texts / sizeof *texts ? str_of(texts[i]) : buf_str(&longest);
                struct compose c = base(COMPOSE_NEW, NULL);
                struct buf b;
                struct message *m;

                c.text = text, c.subject = i % 2 && i < 7 ? text : STR("x");
                if (str_find(c.subject, '\r') < c.subject.n || str_find(c.subject, '\n') < c.subject.n)
                        c.subject = STR("");
                b = composed(&c);
                CHECK(is_tidy(buf_str(&b)));
                m = open_message(buf_str(&b));
                if (c.subject.n)
                        CHECK_BYTES(message_subject(m), c.subject);
                if (i != 4) { /* a bare CR arrives as it left */
                        struct str got = message_text(m);
                        CHECK_BYTES(str_make(got.p, got.n > text.n ? text.n : got.n), text);
                } else {
                        struct part **leaves;
                        NEED(message_leaves(m, &leaves) == 1);
                        CHECK_STR(decoded(leaves[0]), "cr\rin the middle\r\n");
                }
                message_free(m);
                buf_free(&b);
        }
        buf_free(&longest);
}

TEST(long_header_values_are_folded)
{
        struct compose c = base(COMPOSE_NEW, NULL);
        struct str to[60];
        struct buf b, subject = BUF_INIT, refs = BUF_INIT;
        struct message *m;
        const struct addr *x;
        size_t n = 0;

        for (size_t i = 0; i < 60; i++)
                to[i] = arena_printf(a, "\"N\xc3\xa4me, %zu\" <user%zu@example.org>", i, i);
        for (int i = 0; i < 100; i++) {
                buf_printf(&subject, "w\xc3\xb6rter und words %d ", i);
                buf_printf(&refs, "<some-message-id-%d@example.org>%s", i, i < 99 ? " " : "");
        }
        c.to = to, c.to_n = 60, c.subject = buf_str(&subject), c.references = buf_str(&refs);
        b = composed(&c);
        CHECK(is_tidy(buf_str(&b)));
        m = open_message(buf_str(&b));
        CHECK_BYTES(message_subject(m), str_trim(buf_str(&subject)));
        CHECK_BYTES(field_of(m, "References"), buf_str(&refs));
        for (x = message_addresses(m, STR("To")); x; x = x->next, n++) {
                CHECK_BYTES(x->name, arena_printf(a, "N\xc3\xa4me, %zu", n));
                CHECK_BYTES(x->addr, arena_printf(a, "user%zu@example.org", n));
        }
        CHECK(n == 60);
        message_free(m);
        buf_free(&b);
        buf_free(&subject);
        buf_free(&refs);
}

TEST(new_mail_with_files)
{
        struct message *was = open_message(STR(TWO_FILES)), *m;
        struct part **files;
        char all[256];
        struct compose_file f[6];
        struct compose c = base(COMPOSE_NEW, was);
        struct buf b;

        for (int i = 0; i < 256; i++)
                all[i] = (char)i;
        NEED(message_attachments(was, &files) == 2);
        memset(f, 0, sizeof f);
        f[0].part = files[0];
        f[1].part = files[1], f[1].name = STR("other name.txt");
        f[2].bytes = str_make(all, 256), f[2].name = STR("all \xe2\x82\xac \"quoted\".bin"), f[2].type = STR("application/x-all");
        f[3].bytes = STR(""), f[3].name = STR("empty");
        f[4].bytes = str_make(all, 57), f[4].name = STR("line"), f[4].type = STR("message/rfc822");
        f[5].bytes = str_make(all, 58), f[5].name = STR("a\nb\r\nX-Evil: 1"), f[5].type = STR("evil/x\nX-Evil: 1");
        for (int i = 0; i < 5; i++)
                f[i].next = &f[i + 1];
        c.original = NULL, c.files = f, c.subject = STR("s"), c.text = STR("see files");
        b = composed(&c);
        CHECK(is_tidy(buf_str(&b)));
        m = open_message(buf_str(&b));
        NEED(message_attachments(m, &files) == 6);
        CHECK_STR(part_name(files[0]), "dot.png");
        CHECK_STR(part_type(files[0]), "image/png");
        CHECK_STR(part_name(files[1]), "other name.txt");
        CHECK_STR(part_charset(files[1]), "iso-8859-1");
        CHECK_BYTES(decoded(files[1]), str_make("Zeile \xe4\n x\0y", 12));
        CHECK_BYTES(decoded(files[2]), str_make(all, 256));
        CHECK_STR(part_name(files[2]), "all \xe2\x82\xac \"quoted\".bin");
        CHECK_STR(part_type(files[2]), "application/x-all");
        CHECK(decoded(files[3]).n == 0);
        CHECK_BYTES(decoded(files[4]), str_make(all, 57));
        CHECK_STR(part_type(files[4]), "application/octet-stream");
        CHECK_BYTES(decoded(files[5]), str_make(all, 58));
        CHECK_STR(part_type(files[5]), "application/octet-stream");
        CHECK(!part_field(files[5], STR("X-Evil")).p && !field_of(m, "X-Evil").p);
        CHECK_STR(message_text(m), "see files\n");
        message_free(m);
        message_free(was);
        buf_free(&b);
}

TEST(forward_attached)
{
        static const struct {
                struct str mail;
                const char *cte;
        } rows[] = {
                { { TWO_FILES, sizeof TWO_FILES - 1 }, "7bit" },
                { { "Subject: x\n\nno end", 18 }, "7bit" },
                { { "Subject: na\xc3\xafve\n\n8-bit \xff\n", 24 }, "8bit" },
                { { "Subject: x\n\nN\0L\n", 16 }, "base64" },
                { { "Subject: x\n\ncr\rlf\n", 18 }, "base64" },
                { { "", 0 }, "7bit" },
                { { "\n\n--b\n\n--b--\n", 13 }, "7bit" },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct message *was = open_message(rows[i].mail), *m;
                struct compose c = base(COMPOSE_ATTACH, was);
                struct part **top;
                struct buf b;

                c.text = STR("look");
                b = composed(&c);
                m = open_message(buf_str(&b));
                CHECK(str_starts(message_subject(m), STR("Fwd:")));
                NEED(part_children(message_root(m), &top) == 1 && part_children(top[0], &top) == 2);
                CHECK_STR(part_type(top[1]), "message/rfc822");
                CHECK_STR(part_field(top[1], STR("Content-Transfer-Encoding")), rows[i].cte);
                CHECK_BYTES(decoded(top[1]), rows[i].mail);
                CHECK(strcmp(rows[i].cte, "8bit") != 0 || str_eq(field_of(m, "Content-Transfer-Encoding"), STR("8bit")));
                message_free(m);
                message_free(was);
                buf_free(&b);
        }
}

/* What had to be encoded comes out whole again. */
TEST(S05_forward_attached_encoded)
{
        struct buf text = BUF_INIT, b;
        struct message *was, *m;
        struct compose c;
        struct part **leaves;
        struct str raw;
        size_t at;

        buf_add_str(&text, STR("Subject: long\n\n"));
        for (int i = 0; i < 5000; i++)
                buf_add_char(&text, (char)('a' + i % 26));
        buf_add(&text, "\0\n", 2);
        was = open_message(buf_str(&text));
        c = base(COMPOSE_ATTACH, was);
        b = composed(&c);
        CHECK(is_tidy(buf_str(&b)));
        m = open_message(buf_str(&b));
        NEED(message_open_leaves(m, &leaves) == 1);
        raw = decoded(leaves[0]);
        at = str_find(buf_str(&text), 'a');
        CHECK_BYTES(raw, str_from(buf_str(&text), at > 15 ? 15 : 15));
        message_free(m);
        message_free(was);
        buf_free(&text);
        buf_free(&b);
}

TEST(forward_attached_keeps_attachments)
{
        struct message *was = open_message(STR(TWO_FILES)), *m;
        struct compose c = base(COMPOSE_ATTACH, was);
        struct buf b = composed(&c);
        struct part **leaves, **files;
        size_t n;

        m = open_message(buf_str(&b));
        CHECK_STR(message_subject(m), "Fwd: Gr\xc3\xbc\xc3\x9f" "e");
        n = message_leaves(m, &leaves);
        NEED(n == 3 && message_attachments(was, &files) == 2);
        CHECK_BYTES(decoded(leaves[1]), decoded(files[0]));
        CHECK_BYTES(decoded(leaves[2]), decoded(files[1]));
        message_free(m);
        message_free(was);
        buf_free(&b);
}

TEST(forward_inline)
{
        struct message *was = open_message(STR(TWO_FILES)), *m;
        struct compose c = base(COMPOSE_INLINE, was);
        struct buf b;

        c.text = STR("look at this");
        b = composed(&c);
        CHECK(is_tidy(buf_str(&b)));
        m = open_message(buf_str(&b));
        same_attachments(was, m);
        CHECK_STR(message_subject(m), "Fwd: Gr\xc3\xbc\xc3\x9f" "e");
        CHECK_STR(message_text(m), "look at this\n\n---------- Forwarded message ----------\nFrom: Ann <ann@example.net>\n"
                                   "Subject: Gr\xc3\xbc\xc3\x9f" "e\nTo: me@example.com\n\nSch\xc3\xb6n.");
        message_free(m);
        message_free(was);
        buf_free(&b);
}

TEST(forward_inline_of_a_lone_file)
{
        struct message *was = open_message(STR("Subject: Fwd: scan\nContent-Type: application/pdf; name=a.pdf\n"
                                               "Content-Disposition: attachment; filename=a.pdf\nContent-Transfer-Encoding: base64\n\nJVBERi0xLjQ=\n")), *m;
        struct compose c = base(COMPOSE_INLINE, was);
        struct buf b = composed(&c);

        m = open_message(buf_str(&b));
        same_attachments(was, m);
        CHECK_STR(message_subject(m), "Fwd: scan");
        message_free(m);
        message_free(was);
        buf_free(&b);
}

TEST(forward_inline_says_where_the_text_was_cut)
{
        struct buf text = BUF_INIT, b;
        struct message *was, *m;
        struct compose c;

        buf_add_str(&text, STR("Subject: x\n\n"));
        while (text.n < (size_t)limits_default.text + 5000)
                buf_add_str(&text, STR("a line of text that is repeated\n"));
        was = open_message(buf_str(&text));
        c = base(COMPOSE_INLINE, was);
        struct mail_stream *s = compose(&c, a, &e);
        NEED(s);
        b = read_all(s, 4096);
        mail_stream_close(s);
        CHECK(str_find_str(buf_str(&b), STR("[The text goes on")) < b.n);
        m = open_message(buf_str(&b));
        message_free(m);
        message_free(was);
        buf_free(&text);
        buf_free(&b);
}

TEST(redirect_keeps_the_bytes)
{
        static const struct str mails[] = { { TWO_FILES, sizeof TWO_FILES - 1 }, { "Subject: x\n\n\xff\0\r.\n", 16 }, { "Subject: x\n\nno end", 18 } };

        for (size_t i = 0; i < 3; i++) {
                struct message *was = open_message(mails[i]), *m;
                struct compose c = base(COMPOSE_REDIRECT, was);
                struct buf b = composed(&c);

                CHECK(str_ends(buf_str(&b), mails[i]));
                m = open_message(buf_str(&b));
                CHECK_STR(field_of(m, "Resent-To"), "friend@example.org");
                CHECK_STR(field_of(m, "Resent-From"), "Me Myself <me@example.com>");
                CHECK_STR(field_of(m, "Resent-Date"), "Mon, 23 Nov 2026 05:41:00 +0000");
                CHECK(field_of(m, "Resent-Message-ID").n > 0 && field_of(m, "X-Mailmill-Action").n == 32);
                CHECK_BYTES(message_subject(m), message_subject(was));
                same_attachments(was, m);
                message_free(m);
                message_free(was);
                buf_free(&b);
        }
}

/* ---- S03: values that would write a header of their own ---- */

TEST(S03_hostile_values)
{
        static const struct str bad[] = { { "x\nBcc: evil@x.org", 17 }, { "x\r\nBcc: evil@x.org", 18 }, { "x\ry", 3 }, { "x\0y", 3 } };
        static const struct str addresses[] = { { "a@x.org\nBcc: b@x.org", 20 }, { "a@x.org, b@x.org", 16 }, { "x", 1 }, { "\"N\nBcc: b@x.org\" <a@x.org>", 27 },
                                                { "a@x.org\0", 8 }, { "<a>@b", 5 }, { "-o@x.org", 8 }, { "a b@c.org", 9 } };

        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
                for (int k = 0; k < 6; k++) {
                        struct compose c = base(COMPOSE_NEW, NULL);
                        struct compose_field f = { STR("X-A"), STR("fine"), NULL };

                        c.text = STR("x");
                        if (k == 0)
                                c.subject = bad[i];
                        else if (k == 1)
                                c.in_reply_to = bad[i];
                        else if (k == 2)
                                c.references = bad[i];
                        else if (k == 3)
                                f.value = bad[i], c.fields = &f;
                        else if (k == 4)
                                f.name = bad[i], c.fields = &f;
                        else
                                c.action = bad[i];
                        CHECK(!compose(&c, a, &e) && e.code == ERR_USAGE);
                }
        for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++)
                for (int k = 0; k < 5; k++) {
                        struct message *m = open_message(STR("Subject: x\n\nx"));
                        struct compose c = base(k == 4 ? COMPOSE_REDIRECT : COMPOSE_NEW, m);

                        if (k == 0)
                                c.from = addresses[i];
                        else if (k == 1)
                                c.cc = &addresses[i], c.cc_n = 1;
                        else if (k == 2)
                                c.reply_to = addresses[i];
                        else
                                c.to = &addresses[i], c.to_n = 1;
                        if (compose(&c, a, &e) || e.code != ERR_USAGE)
                                printf("address %zu in place %d passed\n", i, k), test_bad++;
                        message_free(m);
                }
        {
                static const char *const names[] = { "", "a b", "a:", "\xc3\xa4" };
                for (size_t i = 0; i < 4; i++) {
                        struct compose c = base(COMPOSE_NEW, NULL);
                        struct compose_field f = { str_of(names[i]), STR("x"), NULL };
                        c.fields = &f;
                        CHECK(!compose(&c, a, &e) && e.code == ERR_USAGE);
                }
        }
        {
                struct compose c = base(COMPOSE_NEW, NULL);
                c.from = STR("");
                CHECK(!compose(&c, a, &e) && strstr(e.text, "From"));
        }
}

/* A message's own subject may hold anything; it becomes ours only without line ends. */
TEST(S03_hostile_original)
{
        struct message *was = open_message(STR("Subject: =?utf-8?q?x=0ABcc:_evil@x.org=00=0D?=\nFrom: =?utf-8?q?a=0ABcc:_e@x?= <a@x.org>\n"
                                               "Content-Type: image/png; name*=utf-8''a%0ABcc:%20e@x.png\nContent-Disposition: attachment\n\nx")), *m;

        for (int how = COMPOSE_ATTACH; how <= COMPOSE_INLINE; how++) {
                struct compose c = base(how, was);
                struct buf b = composed(&c);

                m = open_message(buf_str(&b));
                CHECK(!field_of(m, "Bcc").p);
                message_free(m);
                buf_free(&b);
        }
        message_free(was);
}

/* ---- copies ---- */

static struct buf copied(struct message *m, const struct compose_field *f, const struct compose_stub *s)
{
        struct mail_stream *st = compose_copy(m, f, s, a, &e);
        struct buf none = BUF_INIT;

        if (st)
                return read_thrice(st);
        printf("copy: %s\n", e.text), test_bad++;
        return none;
}

static void edited(const char *mail, const struct compose_field *f, const char *want)
{
        struct message *m = open_message(str_of(mail));
        struct buf b = copied(m, f, NULL);

        CHECK_STR(buf_str(&b), want);
        buf_free(&b);
        message_free(m);
}

TEST(header_edits)
{
        struct compose_field drop = { STR("x-a"), STR_NONE, NULL }, set = { STR("X-B"), STR("new"), NULL }, both = { STR("X-A"), STR("1"), &set };

        a = a ? a : arena_new(0);
        edited("X-A: 1\nSubject: x\n\nbody\n", &drop, "Subject: x\n\nbody\n");
        edited("X-A: 1\n folded\n\tmore\nSubject: x\n\nbody\n", &drop, "Subject: x\n\nbody\n");
        edited("Subject: x\nX-A : 1\nX-Ab: 2\nX-A: 3\n\nbody\n", &drop, "Subject: x\nX-Ab: 2\n\nbody\n");
        edited("X-A: 1\n\nbody\n", &drop, "\nbody\n");
        edited("Subject:  x \n  y\nX-B: old\n\nbody", &set, "Subject:  x \n  y\nX-B: new\n\nbody");
        edited("Subject: x\n\n\n\nbody\n", &both, "Subject: x\nX-A: 1\nX-B: new\n\n\n\nbody\n");
        edited("Subject: x", &set, "Subject: x\nX-B: new\n\n");
        edited("Subject: x\n", &set, "Subject: x\nX-B: new\n\n");
        edited("\nbody\n", &set, "X-B: new\n\nbody\n");
        edited("", &set, "X-B: new\n\n");
        edited("Subject: x\n\nX-A: in the body\n", &drop, "Subject: x\n\nX-A: in the body\n");
        {
                struct compose_field bad = { STR("X-B"), STR("a\nb"), NULL }, wide = { STR("X-B"), STR("sch\xc3\xb6n"), NULL };
                struct message *m = open_message(STR("Subject: x\n\n"));

                CHECK(!compose_copy(m, &bad, NULL, a, &e) && e.code == ERR_USAGE);
                message_free(m);
                edited("Subject: x\n\n", &wide, "Subject: x\nX-B: =?utf-8?b?c2Now7Zu?=\n\n");
        }
}

TEST(as_is_and_part)
{
        struct message *m = open_message(STR(TWO_FILES));
        struct mail_stream *s = compose_as_is(m, a, &e);
        struct part **files;
        struct buf b;

        NEED(s);
        b = read_thrice(s);
        CHECK_STR(buf_str(&b), TWO_FILES);
        buf_free(&b);
        NEED(message_attachments(m, &files) == 2);
        s = compose_part(files[1], a, &e);
        NEED(s);
        b = read_thrice(s);
        CHECK_BYTES(buf_str(&b), str_make("Zeile \xe4\n x\0y", 12));
        buf_free(&b);
        message_free(m);
}

TEST(detach)
{
        struct message *was = open_message(STR(TWO_FILES)), *m;
        struct part **files, **left;
        struct compose_stub one, two;
        struct buf b;

        NEED(message_attachments(was, &files) == 2);
        two = (struct compose_stub){ files[1], STR("mail/\xc3\xa4 b.txt"), NULL };
        one = (struct compose_stub){ files[0], STR("mail/dot.png"), NULL };
        b = copied(was, NULL, &one);
        m = open_message(buf_str(&b));
        NEED(message_leaves(m, &left) == 3);
        CHECK_STR(part_text(left[0]), "Sch\xc3\xb6n.");
        CHECK_STR(part_text(left[1]), "[dot.png, image/png, 70 bytes, was saved as mail/dot.png]");
        CHECK_BYTES(decoded(left[2]), decoded(files[1]));
        message_free(m);
        buf_free(&b);

        two.next = &one; /* in any order */
        b = copied(was, NULL, &two);
        m = open_message(buf_str(&b));
        NEED(message_leaves(m, &left) == 3);
        CHECK_STR(part_text(left[1]), "[dot.png, image/png, 70 bytes, was saved as mail/dot.png]");
        CHECK_STR(part_text(left[2]), "[\xc3\xa4 b.txt, text/plain, 12 bytes, was saved as mail/\xc3\xa4 b.txt]");
        CHECK(str_find_str(buf_str(&b), STR("iVBOR")) == b.n);
        message_free(m);
        buf_free(&b);
        message_free(was);
}

/* What is signed or encrypted, with everything in it that a rewriting program would tidy: blanks at line ends, odd case, a bare CR, 8-bit,
 * no empty line before the boundary, a preamble. */
#define SIGNED                                                                                                                \
        "content-TYPE:  Multipart/Signed;\n\tprotocol=\"application/pgp-signature\"; micalg=pgp-sha1; boundary=\"s\"\n\n"        \
        "preamble \n--s \nContent-Type:text/plain\n\nsigned  \nwords\r and \xff\n\n--s\n"                                       \
        "Content-Type: application/pgp-signature; name=signature.asc\n\n-----BEGIN PGP SIGNATURE-----\n--s--\nepilogue\t\n"
#define ENCRYPTED                                                                                                             \
        "Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=e\n\n--e\n"                        \
        "Content-Type: application/pgp-encrypted\n\nVersion: 1 \n--e\nContent-Type: application/octet-stream\n\n"               \
        "-----BEGIN PGP MESSAGE-----  \n--e--\n"

static void check_untouched(const char *other)
{
        struct buf text = BUF_INIT, b;
        struct message *was, *m;
        struct part **files, **x, **y;
        struct compose_field set = { STR("Subject"), STR("edited"), NULL };
        struct compose_stub one = { NULL, STR("x.pdf"), NULL };

        buf_printf(&text, "Subject: was\nContent-Type: multipart/mixed; boundary=out\n\n--out\n%s\n--out\nContent-Type: application/pdf\n"
                          "Content-Disposition: attachment; filename=x.pdf\n\n%%PDF\n--out--\n", other);
        was = open_message(buf_str(&text));
        NEED(part_children(message_root(was), &x) == 1 && part_children(x[0], &x) == 2);
        for (size_t n = message_attachments(was, &files); n > 0 && !one.part; n--)
                one.part = str_eq(part_name(files[n - 1]), STR("x.pdf")) ? files[n - 1] : NULL;
        NEED(one.part);
        b = copied(was, &set, &one);
        m = open_message(buf_str(&b));
        CHECK_STR(message_subject(m), "edited");
        NEED(part_children(message_root(m), &y) == 1 && part_children(y[0], &y) == 2);
        CHECK(part_entity(x[0]).n == strlen(other) && part_entity(y[0]).n == strlen(other));
        CHECK(str_find_str(buf_str(&b), str_of(other)) < b.n); /* byte for byte */
        CHECK(str_find_str(buf_str(&b), STR("%PDF")) == b.n);
        message_free(m);
        message_free(was);
        buf_free(&b);
        buf_free(&text);
}

TEST(M17_signed_bytes_stay)
{
        check_untouched(SIGNED);
}

TEST(M17_encrypted_bytes_stay)
{
        check_untouched(ENCRYPTED);
}

TEST(detach_the_only_body)
{
        struct message *was = open_message(STR("Subject: scan\nContent-Type: application/pdf;\n name=a.pdf\nContent-Disposition: attachment; filename=a.pdf\n"
                                               "Content-Transfer-Encoding: base64\nX-Last: 1\n\nJVBERi0xLjQ=\n")), *m;
        struct part **files, **left;
        struct compose_field set = { STR("X-B"), STR("new"), NULL };
        struct compose_stub one = { NULL, STR("a.pdf"), NULL };
        struct buf b;

        NEED(message_attachments(was, &files) == 1);
        one.part = files[0];
        b = copied(was, &set, &one);
        CHECK_STR(buf_str(&b), "Subject: scan\nX-Last: 1\nX-B: new\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
                               "[a.pdf, application/pdf, 8 bytes, was saved as a.pdf]\n");
        m = open_message(buf_str(&b));
        NEED(message_leaves(m, &left) == 1);
        CHECK_STR(part_text(left[0]), "[a.pdf, application/pdf, 8 bytes, was saved as a.pdf]\n");
        message_free(m);
        buf_free(&b);
        message_free(was);
}

/* A name from a message writes no boundary and no field into the copy. */
TEST(detach_a_hostile_name)
{
        struct message *was = open_message(STR("Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/png\n"
                                               "Content-Disposition: attachment; filename*=utf-8''x%0A--b--%0A%0A\n\nx\n--b\n\nlast\n--b--\n")), *m;
        struct part **files, **left;
        struct compose_stub one = { NULL, STR("x"), NULL };
        struct buf b;

        NEED(message_leaves(was, &files) == 2);
        one.part = files[0];
        b = copied(was, NULL, &one);
        m = open_message(buf_str(&b));
        CHECK(message_leaves(m, &left) == 2);
        CHECK_STR(part_text(left[1]), "last");
        message_free(m);
        buf_free(&b);
        message_free(was);
}

TEST(detach_inside_a_wrapper)
{
        struct message *was = open_message(STR("Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n"
                                               "RnJvbTogYQpTdWJqZWN0OiBpbgoKaGlkZGVu\n--b--\n"));
        struct part **leaves;
        struct compose_stub one = { NULL, STR("x"), NULL };

        NEED(message_open_leaves(was, &leaves) == 1);
        one.part = leaves[0];
        CHECK(!compose_copy(was, NULL, &one, a, &e) && e.code == ERR_USAGE);
        message_free(was);
        was = open_message(STR("A: b\n\nsee\nbegin 644 x\n#8V%T\n`\nend\n"));
        NEED(message_open_leaves(was, &leaves) == 2);
        one.part = leaves[1];
        CHECK(!compose_copy(was, NULL, &one, a, &e) && e.code == ERR_USAGE);
        message_free(was);
}

/* ---- memory ---- */

/* Either all of it, or an error: never a mail with something missing. */
static void short_of_memory(int how)
{
        struct buf whole = BUF_INIT;
        bool done = false;

        for (size_t n = 0; !done && n < 2000; n++) {
                struct message *was = open_message(STR(TWO_FILES));
                struct compose c = base(how, was);
                struct mail_stream *s = NULL;
                struct buf b = BUF_INIT;
                struct arena *own;
                ssize_t got = -1;

                NEED(was);
                e.code = ERR_NONE;
                mem_fail_at(n);
                own = arena_new(0);
                s = own ? compose(&c, own, &e) : NULL;
                if (s) {
                        struct feed f = mail_stream_feed(s);
                        char block[512];
                        while ((got = f.fill(f.ctx, block, sizeof block, &e)) > 0)
                                b.n += (size_t)got;
                        mail_stream_close(s);
                }
                mem_fail_at(0);
                if (n == 0)
                        whole.n = b.n;
                else
                        done = got == 0;
                if (got == 0 ? b.n != whole.n : own && e.code == ERR_NONE)
                        printf("how %d, allocation %zu: %zu bytes of %zu, %d %s\n", how, n, b.n, whole.n, e.code, e.text), test_bad++;
                arena_free(own);
                message_free(was);
        }
        CHECK(done);
}

TEST(T4_every_allocation_may_fail)
{
        for (int how = COMPOSE_NEW; how <= COMPOSE_REDIRECT; how++)
                short_of_memory(how);
}

TEST_MAIN
