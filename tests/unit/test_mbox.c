#include <pthread.h>

#include "core/fromline.h"
#include "tests/unit/archives.h"

#define DATE " Mon Nov 23 05:41:00 2026\n"

static struct fromline parse(const char *line)
{
        struct fromline f;

        CHECK(fromline_parse(str_of(line), &f));
        return f;
}

/* At every place, in text that comes near it, and not beyond the end. */
TEST(fromline_is_found)
{
        char text[200], *exact;
        unsigned seed = 7;

        for (size_t n = 0; n < sizeof text; n++)
                for (size_t at = 0; at <= n; at++) {
                        for (size_t i = 0; i < n; i++) {
                                seed = seed * 1103515245 + 12345;
                                text[i] = "FroFrFromFrom\n"[(seed >> 16) % 14];
                        }
                        if (at + 5 <= n)
                                memcpy(text + at, "From ", 5);
                        exact = mem_dup(text, n);
                        NEED(exact || n == 0);
                        CHECK(fromline_find(exact, n) == (at + 5 <= n ? exact + at : NULL));
                        mem_free(exact);
                }
}

TEST(fromline_dates)
{
        static const struct { const char *line, *sender; int64_t time; } rows[] = {
                { "From joe@x.org Mon Nov 23 05:41:00 2026", "joe@x.org", 1795412460 },
                { "From joe@x.org  Mon Nov 23 05:41 2026 ", "joe@x.org", 1795412460 },
                { "From joe@x.org Mon Nov 23 05:41:00 +0100 2026", "joe@x.org", 1795412460 - 3600 },
                { "From joe@x.org Mon Nov 23 05:41:00 2026 -0500", "joe@x.org", 1795412460 + 5 * 3600 },
                { "From joe@x.org Mon Nov 23 05:41:00 EST 2026", "joe@x.org", 1795412460 + 5 * 3600 },
                { "From joe@x.org Mon, 23 Nov 2026 05:41:00 +0000", "joe@x.org", 1795412460 },
                { "From joe@x.org Mon Nov 23 05:41:00 2026 remote from host", "joe@x.org", 1795412460 },
                { "From - Mon Nov 23 05:41:00 2026", "", 1795412460 },
                { "From Mon Nov 23 05:41:00 2026", "", 1795412460 },
                { "From \"joe b\"@x.org Mon Nov 23 05:41:00 2026", "\"joe b\"@x.org", 1795412460 },
                { "From Mon Mon Nov 23 05:41:00 2026", "Mon", 1795412460 },
                { "From x Thu Nov  4 05:41:00 99", "x", 941694060 },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct fromline f = parse(rows[i].line);

                CHECK(f.dated && !f.bare);
                CHECK_STR(f.sender, rows[i].sender);
                CHECK(f.time == rows[i].time);
                if (f.time != rows[i].time)
                        printf("%s: %lld\n", rows[i].line, (long long)f.time);
        }
}

TEST(fromline_without_date)
{
        static const char *const rows[] = {
                "From now on", "From Monday to Friday", "From Mon to Fri", "From x Mon Nov 32 05:41:00 2026",
                "From x Mon Nov 23 25:41:00 2026", "From x Mon Nov 23 2026", "From x Mon Foo 23 05:41:00 2026",
                "From x Mon Nov 23 05:41:00", "From x Mon Nov 0 05:41:00 2026",
        };
        struct fromline f;

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                CHECK(!parse(rows[i]).dated && !parse(rows[i]).bare);
        CHECK(parse("From -").bare && parse("From - ").bare && parse("From ").bare && parse("From 1844@xxx").bare);
        CHECK_STR(parse("From 1844@xxx").sender, "1844@xxx");
        CHECK(!fromline_parse(STR("From: joe"), &f) && !fromline_parse(STR(">From x"), &f) && !fromline_parse(STR_NONE, &f));
        /* a day that does not exist still has the shape, but no time */
        f = parse("From x Mon Feb 31 05:41:00 2026");
        CHECK(f.dated && f.time == 0);
}

TEST(fromline_cut_at_every_byte)
{
        struct str line = STR("From joe@x.org Mon Nov 23 05:41:00 2026");
        struct fromline f;

        for (size_t n = 0; n <= line.n; n++) {
                char *p = mem_dup(line.p, n); /* at the end of an allocation, so that a look too far is seen */

                CHECK(fromline_parse(str_make(p, n), &f) == (n >= 5));
                CHECK(f.dated == (n == line.n || n == line.n - 2)); /* a year of two digits, too */
                mem_free(p);
        }
}

static void read_mbox(struct got *g, struct str content)
{
        struct err e;

        scratch_begin();
        write_file("m", content);
        get(g, open_source("m", &e));
        if (!g->ok)
                printf("%s\n", g->e.text);
}

TEST(splits_and_tells_origin)
{
        struct got g;
        const struct origin *o;

        read_mbox(&g, STR("From a@x.org" DATE "Subject: one\nStatus: RO\nX-Status: AF\n\nbody\n\n"
                          "From - Mon Nov 23 05:41:01 2026\nSubject: two\nX-Status: TD\n\nStatus: R\n\n"));
        CHECK(g.ok && g.finished && g.n == 2 && warnings == 0);
        CHECK_STR(text_of(&g, 0), "Subject: one\nStatus: RO\nX-Status: AF\n\nbody\n");
        CHECK_STR(text_of(&g, 1), "Subject: two\nX-Status: TD\n\nStatus: R\n");
        CHECK_STR(subject_of(&g, 1), "two");
        NEED(g.n == 2);
        o = message_origin(g.m[0]);
        CHECK_STR(o->flags, "FRS");
        CHECK_STR(o->envelope_from, "a@x.org");
        CHECK_STR(o->uid, "0");
        CHECK_STR(o->source, at("m"));
        CHECK(o->number == 1 && o->offset == 0 && o->time == 1795412460 && !o->suspect && o->fetched > 1700000000);
        CHECK(!o->account.p && o->folder.n == 0);
        o = message_origin(g.m[1]);
        CHECK_STR(o->flags, "DT");
        CHECK_STR(o->envelope_from, "");
        CHECK(o->number == 2 && o->offset == 82 && o->time == 1795412461);
        CHECK_STR(o->uid, "82");
        CHECK(g.total_bytes == g.done_bytes && g.done_messages == 2 && g.total_bytes > 0);
        got_free(&g);
}

static bool ambiguous(const struct got *g, size_t i)
{
        return i < g->n && message_origin(g->m[i])->ambiguous;
}

TEST(B01_from_lines_in_bodies)
{
        struct got g;

        read_mbox(&g, STR("From a@x" DATE "S: 1\n\nFrom now on\n>From x\n>>From y\n>>>From z\n >From k\n>From\n>Fromage\n"
                          "From b@x" DATE "text\n\nFrom the desk of\n\n"
                          "From c@x" DATE "S: 2\n\n>From \n"));
        CHECK(g.ok && g.n == 2);
        CHECK_STR(text_of(&g, 0), "S: 1\n\nFrom now on\nFrom x\n>From y\n>>From z\n >From k\n>From\n>Fromage\n"
                                  "From b@x" DATE "text\n\nFrom the desk of\n");
        CHECK_STR(text_of(&g, 1), "S: 2\n\nFrom \n");
        /* after an empty line without a date: "now on", "the desk of"; a date without an empty line: b@x */
        CHECK(warnings == 1 && strstr(warned, "2 messages, or 5: 3 more lines"));
        got_free(&g);
}

TEST(quotes_first_line_and_very_deep)
{
        struct got g;
        char deep[700], want[700];

        memset(deep, 0, sizeof deep);
        snprintf(deep, sizeof deep, "From a@x" DATE ">From first\n");
        memset(want, 0, sizeof want);
        snprintf(want, sizeof want, "From first\n");
        memset(deep + strlen(deep), '>', 255);
        strcat(deep, "From 255\n");
        memset(want + strlen(want), '>', 254);
        strcat(want, "From 255\n");
        memset(deep + strlen(deep), '>', 257);
        strcat(deep, "From 257\n");
        memset(want + strlen(want), '>', 257); /* more than QUOTES_MAX: text */
        strcat(want, "From 257\n");
        read_mbox(&g, str_of(deep));
        CHECK(g.n == 1);
        CHECK_STR(text_of(&g, 0), want);
        got_free(&g);
}

/* Exporters that know no date. */
TEST(dateless_first_line)
{
        struct got g;

        read_mbox(&g, STR("From 18@xxx\nSubject: 1\n\nb\n\nFrom 19@xxx\r\nSubject: 2\n\nFrom me\nno field\n\nFrom two words\nA: b\n\n"
                          "From c@x" DATE "Subject: 3\n\nb\n"));
        CHECK(g.ok && g.n == 3);
        CHECK_STR(subject_of(&g, 0), "1");
        CHECK_STR(subject_of(&g, 1), "2");
        CHECK_STR(subject_of(&g, 2), "3");
        CHECK_STR(text_of(&g, 1), "Subject: 2\n\nFrom me\nno field\n\nFrom two words\nA: b\n");
        got_free(&g);
        /* but where the first one has a date, the others need one */
        read_mbox(&g, STR("From 18@xxx" DATE "Subject: 1\n\nb\n\nFrom 19@xxx\nSubject: 2\n\n"));
        CHECK(g.n == 1 && warnings == 1);
        got_free(&g);
}

/* Writers with a date of their own. */
TEST(odd_dates)
{
        static const struct { const char *line; int64_t time; } rows[] = {
                { "From joe@x.org 2026-11-23T05:41:00", 1795412460 }, { "From joe@x.org 23 Nov 2026 05:41:00 +0100", 1795412460 - 3600 },
                { "From joe@x.org Mon Nov 23 05:41:00 MET DST 2026", 1795412460 }, { "From joe@x.org Mo Nov 23 5.41 2026", 0 },
        };
        struct got g;

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct fromline f = parse(rows[i].line);
                struct buf b = BUF_INIT;

                CHECK(f.odd && !f.dated && !f.bare && f.time == rows[i].time);
                CHECK_STR(f.sender, "joe@x.org");
                for (int n = 1; n <= 2; n++)
                        buf_printf(&b, "%s\nSubject: %d\n\nFrom x at 5:41 in 2026\n\nFrom 12:30 to 2001\nno field\n\n", rows[i].line, n);
                read_mbox(&g, buf_str(&b));
                CHECK(g.ok && g.n == 2);
                CHECK_STR(subject_of(&g, 1), "2");
                got_free(&g);
                buf_free(&b);
        }
        CHECK(!parse("From 5:41 on in 1826").odd && !parse("From 2026 on").odd && !parse("From x 12:5 in 2026").odd);
        /* but where the first one has a date in order, the others need one */
        read_mbox(&g, STR("From 18@xxx" DATE "Subject: 1\n\nb\n\nFrom a@b 2026-11-23T05:41:00\nSubject: 2\n\n"));
        CHECK(g.n == 1 && warnings == 1);
        got_free(&g);
}

TEST(B04_crlf_mixed_bom_nul)
{
        struct got g;

        read_mbox(&g, STR("\xef\xbb\xbf\r\n\nFrom a@x Mon Nov 23 05:41:00 2026\r\nSubject: 1\r\n\r\na\0b\rc\r\r\nd\n>From e\r\n\r\n"
                          "From b@x Mon Nov 23 05:41:00 2026\r\nSubject: 2\r\n\r\nlast\r\n\r\n"));
        CHECK(g.ok && g.n == 2);
        CHECK_BYTES(text_of(&g, 0), STR("Subject: 1\n\na\0b\rc\r\nd\nFrom e\n"));
        CHECK_STR(text_of(&g, 1), "Subject: 2\n\nlast\n");
        NEED(g.n == 2);
        CHECK(message_origin(g.m[0])->offset == 6);
        CHECK_STR(message_origin(g.m[1])->envelope_from, "b@x");
        got_free(&g);
}

TEST(B04_cr_only_and_no_from_line)
{
        struct got g;
        char *big = mem_zero(4000);
        struct err e;
        int fd;

        memset(big, 'x', 4000);
        memcpy(big, "From a@x Mon Nov 23 05:41:00 2026\rSubject: 1\r\r", 46);
        scratch_begin();
        write_file("cr", str_make(big, 4000));
        get(&g, open_source("cr", &e));
        CHECK(!g.ok && g.e.code == ERR_SYNTAX && strstr(g.e.text, "CR alone") && strstr(g.e.text, "/cr"));
        write_file("none", STR("Subject: x\n\nFrom a" DATE));
        fd = open(at("none"), O_RDONLY);
        get(&g, mbox_open(fd, STR("none"), &limits_default, scratch, &e));
        CHECK(!g.ok && g.e.code == ERR_SYNTAX && g.n == 0);
        mem_free(big);
}

TEST(small_ends)
{
        static const struct { const char *in, *first, *second; size_t n; bool suspect; } rows[] = {
                { "", NULL, NULL, 0, false },
                { "\n\n", "\n\n", NULL, 1, false }, /* no From_ line: a message without header */
                { "From a" DATE, "", NULL, 1, false },
                { "From a Mon Nov 23 05:41:00 2026", "", NULL, 1, true },
                { "From a" DATE "\n", "", NULL, 1, false },
                { "From a" DATE "\nFrom b" DATE, "", "", 2, false },
                { "From a" DATE "\n\nFrom b" DATE, "\n", "", 2, false },
                { "From a" DATE "S: x\n", "S: x\n", NULL, 1, false },
                { "From a" DATE "S: x\n\n", "S: x\n", NULL, 1, false },
                { "From a" DATE "S: x\n\n\n", "S: x\n\n", NULL, 1, false },
                { "From a" DATE "S: x\n\nb", "S: x\n\nb", NULL, 1, true },
                { "From a" DATE "S: x\r", "S: x\r", NULL, 1, true },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct got g;

                read_mbox(&g, str_of(rows[i].in));
                CHECK(g.ok && g.finished && g.n == rows[i].n);
                if (g.n != rows[i].n)
                        printf("row %zu: %zu messages\n", i, g.n);
                if (rows[i].first)
                        CHECK_STR(text_of(&g, 0), rows[i].first);
                if (rows[i].second)
                        CHECK_STR(text_of(&g, 1), rows[i].second);
                if (g.n)
                        CHECK(message_origin(g.m[g.n - 1])->suspect == rows[i].suspect);
                got_free(&g);
        }
}

static const char three[] = "From a@x" DATE "Subject: 1\n\nb\n>From c\n\nFrom b@x" DATE "Subject: 2\n\nd\n\n\nFrom c@x" DATE
                            "Subject: 3\n\ne\n\n";

TEST(B03_cut_at_every_byte)
{
        static const char *const whole[] = { "Subject: 1\n\nb\nFrom c\n", "Subject: 2\n\nd\n\n", "Subject: 3\n\ne\n" };
        size_t most = 0;

        for (size_t n = 5; n < sizeof three; n++) {
                struct got g;

                read_mbox(&g, str_make(three, n));
                CHECK(g.ok && g.finished && g.n >= 1 && g.n + 1 >= most); /* cut in "202", a From_ line is none */
                most = g.n > most ? g.n : most;
                for (size_t i = 0; i + 1 < g.n; i++)
                        CHECK_STR(text_of(&g, i), whole[i]);
                NEED(g.n > 0);
                CHECK(message_origin(g.m[g.n - 1])->suspect == (three[n - 1] != '\n'));
                got_free(&g);
        }
        CHECK(most == 3);
}

static void *drip(void *arg)
{
        int fd = *(int *)arg;

        for (size_t i = 0; i < sizeof three - 1; i++)
                if (write(fd, three + i, 1) != 1)
                        abort();
        close(fd);
        return NULL;
}

TEST(a_byte_at_a_time)
{
        struct got g;
        struct err e;
        pthread_t t;
        int fd[2];

        scratch_begin();
        NEED(pipe(fd) == 0);
        pthread_create(&t, NULL, drip, &fd[1]);
        get(&g, mbox_open(fd[0], STR("pipe"), &limits_default, scratch, &e));
        pthread_join(t, NULL);
        CHECK(g.ok && g.n == 3 && g.total_bytes == 0);
        CHECK_STR(text_of(&g, 0), "Subject: 1\n\nb\nFrom c\n");
        CHECK_STR(text_of(&g, 2), "Subject: 3\n\ne\n");
        got_free(&g);
}

/* B05 too: bodies that forge a whole From_ line. Messages made at random are quoted as mboxrd says, and must come back whole, wherever blocks end. */
static uint32_t seed;
static uint32_t any(uint32_t n)
{
        seed = seed * 1664525 + 1013904223;
        return (seed >> 8) % n;
}

static void random_message(struct buf *b, bool crs)
{
        static const char *const lines[] = { "From now on", "From x Mon Nov 23 05:41:00 2026", ">From y", ">>From z", "", "", "text",
                                             ">", "From", "From ", "a From b", ">>", "From From x", "Subject: q" };
        size_t n = any(120);

        buf_add_str(b, STR("Subject: s\n\n"));
        for (size_t i = 0; i < n; i++) {
                uint32_t k = any(sizeof lines / sizeof *lines + 3);

                if (k < sizeof lines / sizeof *lines)
                        buf_add_str(b, str_of(lines[k]));
                else
                        for (uint32_t w = any(k == 15 ? 3000 : 90); w > 0; w--)
                                buf_add_char(b, crs && any(9) == 0 ? '\r' : (char)('!' + any(90)));
                if (crs && b->p[b->n - 1] == '\r')
                        buf_add_char(b, 'e'); /* a bare CR before the LF would be a CRLF of the archive */
                buf_add_char(b, '\n');
        }
}

static void quote(struct buf *out, struct str text, bool crlf)
{
        buf_printf(out, "From me@x.org Mon Nov 23 05:41:00 2026%s\n", crlf ? "\r" : "");
        while (text.n > 0) {
                struct str line = str_take(&text, '\n');
                size_t q = 0;

                while (q < line.n && line.p[q] == '>')
                        q++;
                if (str_starts(str_from(line, q), STR("From ")))
                        buf_add_char(out, '>');
                buf_add_str(out, line);
                buf_add_str(out, crlf ? STR("\r\n") : STR("\n"));
        }
        buf_add_str(out, crlf ? STR("\r\n") : STR("\n"));
}

static void round_trip(bool crlf, bool crs, bool piped, uint64_t memory)
{
        struct buf box = BUF_INIT, all = BUF_INIT;
        struct limits lim = limits_default;
        size_t ends[6];
        struct got g;
        struct err e;

        lim.memory_message = memory;
        for (int i = 0; i < 6; i++) {
                size_t from = all.n;

                random_message(&all, crs);
                ends[i] = all.n;
                quote(&box, str_make(all.p + from, all.n - from), crlf);
        }
        write_file("m", buf_str(&box));
        get(&g, mbox_open(piped ? pipe_with(buf_str(&box)) : open(at("m"), O_RDONLY), STR("m"), &lim, scratch, &e));
        CHECK(g.ok && g.n == 6);
        for (size_t i = 0; i < g.n && i < 6; i++) {
                size_t from = i ? ends[i - 1] : 0;

                CHECK_BYTES(text_of(&g, i), str_make(all.p + from, ends[i] - from));
                CHECK(g.in_file[i] == (ends[i] - from > memory));
        }
        got_free(&g);
        buf_free(&box);
        buf_free(&all);
}

TEST(round_trips_across_blocks)
{
        static const size_t blocks[] = { SLURP_BLOCK_MIN, 2111, 3000, 4099, SLURP_BLOCK };

        scratch_begin();
        for (seed = 1; seed != 0 && test_bad == 0;) {
                static int round;

                slurp_block = blocks[round % 5];
                round_trip(round & 1, round & 2, round & 4, round % 3 == 0 ? 100 : round % 3 == 1 ? 4000 : 1 << 20);
                if (++round == 600)
                        break;
        }
        slurp_block = SLURP_BLOCK;
}

/* A large message of a file stands there in pieces, and in a copy when there would be too many of them. */
TEST(bytes_left_out_of_a_large_message)
{
        static const int lines[] = { 1, 2, 2046, 2047, 2048, 2049, 5000 };

        scratch_begin();
        for (size_t i = 0; i < 3 * (sizeof lines / sizeof *lines) && test_bad == 0; i++) {
                struct buf box = BUF_INIT, want = BUF_INIT;
                struct limits lim = limits_default;
                struct got g;
                struct err e;

                lim.memory_message = i % 3 == 0 ? 20 : i % 3 == 1 ? 30000 : 1 << 20;
                buf_add_str(&want, STR("S: 1\n\n"));
                for (int n = 0; n < lines[i / 3]; n++)
                        buf_printf(&want, "From %d, and more\nFrom\n%s", n, n % 3 ? ">From\n\n>From 2\n" : "");
                quote(&box, buf_str(&want), i & 1);
                quote(&box, STR("S: 2\n\nsmall\n"), i & 1);
                write_file("m", buf_str(&box));
                get(&g, mbox_open(open(at("m"), O_RDONLY), STR("m"), &lim, scratch, &e));
                CHECK(g.ok && g.n == 2);
                CHECK_BYTES(text_of(&g, 0), buf_str(&want));
                CHECK_BYTES(text_of(&g, 1), STR("S: 2\n\nsmall\n"));
                got_free(&g);
                buf_free(&box);
                buf_free(&want);
        }
}

struct asked {
        bool answer;
        int n;
        char uid[24];
};

static bool note_asked(void *ctx, struct str uid)
{
        struct asked *a = ctx;

        a->n++;
        snprintf(a->uid, sizeof a->uid, "%.*s", STR_FMT(uid));
        return a->answer;
}

static void same_tree(struct message *m, struct message *twin)
{
        struct part **parts, **twins;
        size_t n, twin_n, d, twin_d;
        struct err e;

        NEED(message_parse(m, &e) && message_parse(twin, &e));
        n = message_leaves(m, &parts);
        twin_n = message_leaves(twin, &twins);
        NEED(n == twin_n);
        for (size_t i = 0; i < n; i++) {
                CHECK_BYTES(part_path(parts[i]), part_path(twins[i]));
                CHECK_BYTES(part_type(parts[i]), part_type(twins[i]));
                CHECK_BYTES(part_content(parts[i]), part_content(twins[i]));
        }
        message_defects(m, &d);
        message_defects(twin, &twin_d);
        CHECK(d == twin_d);
}

static void multipart(struct buf *b, int i)
{
        buf_printf(b, "Subject: %d\nContent-Type: multipart/mixed; boundary=%s\n\npreamble\n", i, i % 7 ? "x" : "\"\"");
        for (int k = 0; k <= i % 5; k++)
                buf_printf(b, "--x\nContent-Type: %s\n\n%s\nFrom %d\n--y\n%s", k % 3 ? "text/html" : "message/rfc822",
                           k % 2 ? "Subject: in\n" : "", k, i % 3 == 1 ? "\n" : "");
        if (i % 4)
                buf_add_str(b, STR("--x--\n"));
}

/* The structure of a large message that was found while it was read is the one that parsing finds; nothing is parsed unasked. */
TEST(parsed_while_it_is_read)
{
        static const size_t blocks[] = { SLURP_BLOCK_MIN, 2111, SLURP_BLOCK };

        scratch_begin();
        for (int i = 0; i < 120 && test_bad == 0; i++) {
                struct buf box = BUF_INIT, first = BUF_INIT, text = BUF_INIT;
                struct limits lim = limits_default;
                struct asked asked = { .answer = i % 6 };
                struct message *m[2], *twin;
                struct source *s;
                struct err e;
                char uid[24];

                slurp_block = blocks[i % 3];
                lim.memory_message = i % 5 ? 30 : 300;
                multipart(&text, i);
                quote(&first, STR("S\n\n"), false);
                buf_add_str(&box, buf_str(&first));
                quote(&box, buf_str(&text), i & 1);
                write_file("m", buf_str(&box));
                NEED(s = mbox_open(i & 2 ? pipe_with(buf_str(&box)) : open(at("m"), O_RDONLY), STR("m"), &lim, scratch, &e));
                s->may_parse = note_asked;
                s->may_parse_ctx = &asked;
                NEED(s->ops->next(s, &m[0], &e) && m[0] && s->ops->next(s, &m[1], &e) && m[1]);
                CHECK(asked.n == (text.n > lim.memory_message));
                snprintf(uid, sizeof uid, "%zu", first.n);
                CHECK(!asked.n || strcmp(asked.uid, uid) == 0);
                NEED(twin = message_new(message_range(m[1]), message_origin(m[1]), &lim, &e));
                same_tree(m[1], twin);
                message_free(twin);
                message_free(m[0]);
                message_free(m[1]);
                source_free(s);
                buf_free(&box);
                buf_free(&first);
                buf_free(&text);
        }
        slurp_block = SLURP_BLOCK;
}

/* Every distance between a block's end and a From_ line or a quoted one. */
TEST(every_place_of_a_block_end)
{
        static char box[8192], want[8192];

        scratch_begin();
        slurp_block = SLURP_BLOCK_MIN;
        for (size_t pad = 0; pad < 2200 && test_bad == 0; pad++) {
                size_t n = (size_t)sprintf(box, "From a@x" DATE "S: ");
                struct got g;
                struct err e;

                memset(box + n, 'x', pad);
                sprintf(box + n + pad, "\r\n\r\n>>From here\r\n\r\nFrom b@x" DATE ">From there\n\n"
                        "From c@x" DATE "\nFrom d@x" DATE "S: 2\n%02000d\n\n", 0);
                write_file("m", str_of(box));
                get(&g, open_source("m", &e));
                memcpy(want, "S: ", 3);
                memset(want + 3, 'x', pad);
                strcpy(want + 3 + pad, "\n\n>From here\n");
                CHECK(g.n == 4);
                CHECK_STR(text_of(&g, 0), want);
                CHECK_STR(text_of(&g, 1), "From there\n");
                CHECK_STR(text_of(&g, 2), "");
                CHECK_STR(str_first(text_of(&g, 3), 8), "S: 2\n000");
                got_free(&g);
        }
        slurp_block = SLURP_BLOCK;
}

static struct str big_body(struct buf *b, size_t lines)
{
        for (size_t i = 0; i < lines; i++)
                buf_printf(b, "%080zu\n", i);
        return buf_str(b);
}

TEST(B03_large_messages_lie_in_files)
{
        static const char *const tails[] = { "", ">From x\n", "y\r\n" }; /* as it stands; with a quote, a CRLF, at its end */
        struct got g;
        struct err e;

        for (int i = 0; i < 3; i++) {
                struct buf box = BUF_INIT;

                buf_add_str(&box, STR("From a@x" DATE "Subject: big\nStatus: R\n\n"));
                big_body(&box, 40000);
                buf_add_str(&box, str_of(tails[i]));
                buf_add_str(&box, STR("\nFrom b@x" DATE "Subject: two\n\n"));
                scratch_begin();
                write_file("m", buf_str(&box));
                get(&g, open_source("m", &e));
                CHECK(g.ok && g.n == 2 && g.in_file[0] && !g.in_file[1]);
                NEED(g.n == 2);
                CHECK(message_size(g.m[0]) == 24 + 40000 * 81 + strlen(tails[i]) - (i > 0));
                CHECK_STR(str_first(text_of(&g, 0), 24), "Subject: big\nStatus: R\n\n");
                CHECK(str_ends(text_of(&g, 0), i == 0 ? STR("39999\n") : i == 1 ? STR("39999\nFrom x\n") : STR("39999\ny\n")));
                CHECK_STR(message_origin(g.m[0])->flags, "S");
                CHECK(message_range(g.m[0]).at == (i == 0 ? 34 : 0)); /* in the archive, or in a file of its own */
                got_free(&g);
                buf_free(&box);
        }
}

/* Opened in the middle of a message that another program goes on writing. */
TEST(B03_last_message_is_being_written)
{
        static const struct { const char *more; bool suspect; } rows[] = {
                { "it goes on\n", true }, { "From d@x" DATE "S: 4\n", false }, { "\nFrom d@x" DATE, false }, { "\r\nFrom d", false },
                { "\nnext paragraph\n", true }, { "F", false }, { "\n", false },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                struct source *s;
                struct got g;
                struct err e;
                int fd;

                scratch_begin();
                write_file("m", STR("From a@x" DATE "S: 1\n\nb\n\nFrom b@x" DATE "S: 2\n\nhalf\n"));
                s = open_source("m", &e);
                NEED(s);
                fd = open(at("m"), O_WRONLY | O_APPEND);
                CHECK(write(fd, rows[i].more, strlen(rows[i].more)) > 0);
                close(fd);
                get(&g, s);
                CHECK(g.ok && g.n == 2);
                NEED(g.n == 2);
                CHECK(!message_origin(g.m[0])->suspect && message_origin(g.m[1])->suspect == rows[i].suspect);
                CHECK_STR(text_of(&g, 1), "S: 2\n\nhalf\n");
                got_free(&g);
        }
}

/* What lies behind 4 GiB, without reading what lies before; a hole in a file, so that nobody has to write it. */
TEST(B03_beyond_four_gigabytes)
{
        static const char tail[] = "From a@x" DATE "Subject: 1\n\na\n\nFrom b@x" DATE "Subject: 2\n\nb\n";
        uint64_t hole = ((uint64_t)4 << 30) + 12345;
        struct source *s;
        struct got g;
        struct err e;
        int fd;

        scratch_begin();
        write_file("m", STR(""));
        fd = open(at("m"), O_RDWR);
        CHECK(pwrite(fd, tail, sizeof tail - 1, (off_t)hole) == sizeof tail - 1 && lseek(fd, (off_t)hole, SEEK_SET) > 0);
        s = mbox_open(fd, STR("m"), &limits_default, scratch, &e);
        NEED(s);
        get(&g, s);
        CHECK(g.ok && g.n == 2 && g.total_bytes == hole + sizeof tail - 1 && g.done_bytes == g.total_bytes);
        NEED(g.n == 2);
        CHECK(message_origin(g.m[0])->offset == hole && message_origin(g.m[1])->offset == hole + 49);
        CHECK_STR(text_of(&g, 1), "Subject: 2\n\nb\n");
        got_free(&g);
}

/* Larger than limits.message: left out, by name and place; not in silence, and at no cost. */
TEST(B03_more_than_the_limit)
{
        struct limits lim = limits_default;
        struct buf box = BUF_INIT;
        struct got g;
        struct err e;

        lim.message = 5000;
        buf_add_str(&box, STR("From a@x" DATE "Subject: 1\n\nb\n\nFrom b@x" DATE "Subject: 2\n\n"));
        big_body(&box, 40000);
        buf_add_str(&box, STR("\nFrom c@x" DATE "Subject: 3\n\nc\n"));
        scratch_begin();
        write_file("m", buf_str(&box));
        get(&g, source_open(str_of(at("m")), &lim, "/nonexistent", &e)); /* no copy is begun */
        CHECK(g.ok && g.n == 2 && !g.finished && g.skipped == 1);
        CHECK_STR(subject_of(&g, 1), "3");
        CHECK(warnings == 1 && strstr(warned, "/m: the message at byte 49 is left out: its 3240012 bytes are more than the limit of 5000"));
        CHECK(strstr(g.finish_e.text, "1 entry could not"));
        got_free(&g);
        buf_free(&box);
}

TEST(B03_file_growing_and_shrinking)
{
        struct buf box = BUF_INIT;
        struct message *m;
        struct source *s;
        struct got g;
        struct err e;
        int fd;

        scratch_begin();
        write_file("m", str_of(three));
        s = open_source("m", &e);
        NEED(s);
        fd = open(at("m"), O_WRONLY | O_APPEND);
        CHECK(write(fd, "From d@x" DATE "S: 4\n", 39) == 39);
        close(fd);
        get(&g, s);
        CHECK(g.ok && g.n == 3);
        got_free(&g);

        for (int i = 0; i < 3; i++) {
                buf_add_str(&box, STR("From a@x" DATE "S: 1\n\n"));
                big_body(&box, 5000);
                buf_add_char(&box, '\n');
        }
        write_file("m", buf_str(&box));
        s = open_source("m", &e);
        NEED(s && s->ops->next(s, &m, &e) && m);
        message_free(m);
        CHECK(truncate(at("m"), 800000) == 0);
        get(&g, s);
        CHECK(!g.ok && g.n == 1 && g.e.code == ERR_IO && strstr(g.e.text, "became shorter") && strstr(g.e.text, "behind message 2"));
        NEED(g.n == 1);
        CHECK(message_origin(g.m[0])->suspect);
        got_free(&g);
        buf_free(&box);
}

TEST(stop_and_failures)
{
        struct limits lim = limits_default;
        struct buf box = BUF_INIT;
        struct message *m;
        struct source *s;
        struct err e;

        scratch_begin();
        write_file("m", str_of(three));
        s = open_source("m", &e);
        NEED(s && s->ops->next(s, &m, &e) && m);
        message_free(m);
        atomic_store(&s->stop, true);
        CHECK(s->ops->next(s, &m, &e) && !m);
        source_free(s);

        /* no place for a large message: an error that names it, and nothing after it */
        buf_add_str(&box, STR("From a@x" DATE "S: 1\r\n\n"));
        big_body(&box, 100);
        lim.memory_message = 100;
        s = mbox_open(pipe_with(buf_str(&box)), STR("/m"), &lim, "/nonexistent-dir", &e);
        NEED(s);
        CHECK(!s->ops->next(s, &m, &e) && !m && strstr(e.text, "/nonexistent-dir") && strstr(e.text, "/m"));
        CHECK(s->ops->next(s, &m, &e) && !m);
        source_free(s);
        buf_free(&box);
}

/* ---- Content-Length, Mozilla ---- */

static void read_piped(struct got *g, struct str content)
{
        struct err e;

        scratch_begin();
        get(g, mbox_open(pipe_with(content), STR("pipe"), &limits_default, scratch, &e));
}

static const char cl2[] = "From a@x" DATE "Subject: 1\nContent-Length: 80\n\nforged:\n\nFrom b@x" DATE "Subject: no\n\n>From a letter\nF\n\n\n\n"
                          "From c@x" DATE "Subject: 2\nContent-Length: 14\n\n>From y\nlast\n";

TEST(content_length_where_consistent)
{
        const char *body = strstr(cl2, "forged"), *end = strstr(cl2, "\nFrom c@x");
        struct buf b = BUF_INIT;
        struct got g;

        for (int piped = 0; piped < 2; piped++) {
                for (int delta = -1; delta <= 1; delta++) { /* B02: one byte off, and it is not believed */
                        buf_clear(&b);
                        buf_add_str(&b, str_make(cl2, (size_t)(strstr(cl2, "80") - cl2)));
                        buf_printf(&b, "%d%s", (int)(end - body) + delta, strstr(cl2, "80") + 2);
                        if (piped)
                                read_piped(&g, buf_str(&b));
                        else
                                read_mbox(&g, buf_str(&b));
                        CHECK(g.ok && g.n == (delta ? 3 : 2));
                        if (!delta) {
                                CHECK_BYTES(str_from(text_of(&g, 0), str_find_str(text_of(&g, 0), STR("\n\n")) + 2),
                                            str_make(body, (size_t)(end - body)));
                                CHECK_STR(subject_of(&g, 1), "2"); /* and an mboxcl2 quotes nothing */
                                CHECK(str_ends(text_of(&g, 1), STR("\n>From y\nlast\n")));
                        }
                        got_free(&g);
                }
        }
        buf_free(&b);
}

/* The next message is farther away than the buffer reaches: a file is asked there, a stream is read ahead. */
TEST(content_length_far_away)
{
        struct got g;

        for (int i = 0; i < 4; i++) {
                struct buf body = BUF_INIT, box = BUF_INIT;
                struct err e;
                bool wrong = i & 1;

                slurp_block = SLURP_BLOCK_MIN;
                buf_add_str(&body, STR("x\n\nFrom forged@x" DATE "Subject: no\n\n"));
                big_body(&body, 2000);
                buf_printf(&box, "From a@x" DATE "Subject: 1\nContent-Length: %zu\n\n", body.n + wrong);
                buf_add_str(&box, buf_str(&body));
                buf_add_str(&box, STR("\nFrom b@x" DATE "Subject: 2\n\nb\n\nFrom c@x" DATE "Subject: 3\n\nc\n"));
                scratch_begin();
                write_file("m", buf_str(&box));
                get(&g, mbox_open(i & 2 ? pipe_with(buf_str(&box)) : open(at("m"), O_RDONLY), STR("m"), &limits_default, scratch, &e));
                CHECK(g.ok && g.n == (wrong ? 4 : 3));
                CHECK_STR(subject_of(&g, g.n - 1), "3");
                CHECK_STR(text_of(&g, g.n - 1), "Subject: 3\n\nc\n");
                if (!wrong && g.n)
                        CHECK(str_ends(text_of(&g, 0), buf_str(&body)));
                got_free(&g);
                buf_free(&body);
                buf_free(&box);
                slurp_block = SLURP_BLOCK;
        }
}

TEST(B02_content_length_nonsense)
{
        static const char *const lengths[] = { "-1", "100000000000000000000", "9223372036854775807", "", "0", "1", "12x", "999999", "0x10" };

        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                struct buf b = BUF_INIT;
                struct got g;

                buf_printf(&b, "From a@x" DATE "Subject: 1\nContent-Length: %s\n\nbody\n\nFrom b@x" DATE "Subject: 2\nContent-Length: %s\n\nc\n",
                           lengths[i], lengths[i]);
                for (int piped = 0; piped < 2; piped++) {
                        if (piped)
                                read_piped(&g, buf_str(&b));
                        else
                                read_mbox(&g, buf_str(&b));
                        CHECK(g.ok && g.n == 2);
                        CHECK(str_ends(text_of(&g, 0), STR("\n\nbody\n")) && str_ends(text_of(&g, 1), STR("\n\nc\n")));
                        got_free(&g);
                }
                buf_free(&b);
        }
}

/* A text with a whole message in it. As mboxrd writes it, it never splits; what an mboxo may have meant otherwise is flagged. */
TEST(B05_text_that_forges_a_message)
{
        struct got g;

        read_mbox(&g, STR("From a@x" DATE "Subject: 1\n\nb\n\n>From x" DATE "Subject: forged\n\nc\n\n>>From y" DATE "Subject: deeper\n\n\n"
                          "From b@x" DATE "Subject: 2\n\n>From here on\n"));
        CHECK(g.ok && g.n == 2 && warnings == 0);
        CHECK_STR(text_of(&g, 0), "Subject: 1\n\nb\n\nFrom x" DATE "Subject: forged\n\nc\n\n>From y" DATE "Subject: deeper\n\n");
        CHECK(ambiguous(&g, 0) && !ambiguous(&g, 1));
        got_free(&g);

        /* without the quote it begins one, which nobody can tell from a true one; without a header behind it, it is flagged */
        read_mbox(&g, STR("From a@x" DATE "Subject: 1\n\nb\n\nFrom x" DATE "Subject: forged\n\nc\n\nFrom y" DATE "and so on\n"));
        CHECK(g.n == 3 && warnings == 1 && strstr(warned, "3 messages, or 2: behind 1 lines"));
        CHECK(!ambiguous(&g, 0) && !ambiguous(&g, 1) && ambiguous(&g, 2));
        got_free(&g);

        /* near misses stay text, and are flagged */
        read_mbox(&g, STR("From a@x" DATE "Subject: 1\n\nb\nFrom x" DATE "Subject: forged\n\nc\n\nFrom b@x" DATE "Subject: 2\n\nb\n"));
        CHECK(g.n == 2 && ambiguous(&g, 0) && !ambiguous(&g, 1) && strstr(warned, "2 messages, or 3: 1 more lines"));
        got_free(&g);
}

/* B05: a message in a file without the field cannot swallow the next one with it. */
TEST(B05_content_length_of_a_stranger)
{
        struct got g;

        read_mbox(&g, STR("From a@x" DATE "Subject: 1\n\nb\n\nFrom b@x" DATE "Subject: 2\nContent-Length: 50\n\nc\n\nFrom c@x" DATE
                          "Subject: 3\n\nd\n"));
        CHECK(g.n == 3);
        got_free(&g);
}

/* Without an empty line, but where the length says so. */
TEST(content_length_without_empty_line)
{
        struct got g;

        read_mbox(&g, STR("From a@x" DATE "Subject: 1\nContent-Length: 5\n\n--C--\nFrom b@x" DATE "Subject: 2\nContent-Length: 3\r\n\r\n"
                          "--C\r\nFrom c@x" DATE "Subject: 3\n\nd\n"));
        CHECK(g.ok && g.n == 3 && warnings == 0);
        CHECK(str_ends(text_of(&g, 0), STR("\n--C--\n")));
        got_free(&g);
}

TEST(mozilla_folders)
{
        struct got g;

        read_mbox(&g, STR("From - Mon Nov 23 05:41:00 2026\nX-Mozilla-Status: 1005\nX-Mozilla-Status2: 00000000\nSubject: 1\n\nb\n"
                          "From - \nX-Mozilla-Status: 0009\nSubject: gone\n\nc\n\nFrom - nothing\n"
                          "From -\nX-Mozilla-Status: 0000\nX-Mozilla-Status: 0008\nSubject: 2\n\nd\nFrom - \nno field\n\n"
                          "From a@x" DATE "X-Mozilla-Status: 0008\nSubject: 3\n\ne\n")); /* only Mozilla's own word counts */
        CHECK(g.ok && g.finished && g.n == 3 && g.skipped == 1);
        CHECK_STR(subject_of(&g, 0), "1");
        CHECK_STR(subject_of(&g, 1), "2");
        CHECK_STR(subject_of(&g, 2), "3");
        NEED(g.n == 3);
        CHECK_STR(message_origin(g.m[0])->flags, "FPS");
        CHECK(message_origin(g.m[1])->number == 2);
        got_free(&g);

        /* as Thunderbird writes today: a From_ line of nothing, CRLF, an empty line */
        read_mbox(&g, STR("From \r\nX-Mozilla-Status: 0008\r\nSubject: 1\r\n\r\nb\r\n>From x\r\n\r\nFrom \r\nSubject: 2\r\n\r\nc\r\n\r\n"
                          "From \r\nSubject: 3\r\nX-Mozilla-Status: 0008\r\n\r\nc\r\n\r\n"));
        CHECK(g.ok && g.n == 1 && g.skipped == 2);
        CHECK_STR(text_of(&g, 0), "Subject: 2\n\nc\n");
        got_free(&g);

        read_mbox(&g, STR("From a@x" DATE "Subject: 1\n\nb\nFrom - \nSubject: x\n\nFrom - Mon Nov 23 05:41:00 2026\nSubject: 2\n\n"));
        CHECK(g.n == 2); /* and only in its own files do empty lines not matter */
        got_free(&g);
}

TEST(every_allocation_fails)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("m", str_of(three));
        for (size_t n = 1; n < 400; n++) {
                struct source *s;

                mem_fail_at(n);
                e.code = ERR_NONE;
                s = open_source("m", &e);
                if (s) {
                        struct message *m = NULL;

                        while (s->ops->next(s, &m, &e) && m) {
                                message_free(m);
                                m = NULL;
                        }
                        source_free(s);
                }
                mem_fail_at(0);
        }
        get(&g, open_source("m", &e));
        CHECK(g.n == 3);
        got_free(&g);
}

TEST_MAIN
