/* Patterns of what servers say and of archives: POP3 and SMTP over a stream in memory, mbox from a file and from a pipe. */
#include "tests/cost/cost.h"

#include <sys/mman.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/dot.h"
#include "core/lines.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/pop3.h"
#include "core/sequences.h"
#include "core/smtp.h"

static void read_listing(struct str in)
{
        struct err e;
        struct pop3 *p = pop3_new(lines_new(stream_memory(in, NULL, &e), 1000, &e), &e);
        struct pop3_listing *l;
        struct pop3_item item;

        if (!p)
                return;
        (void)!pop3_capabilities(p, NULL, &e);
        l = pop3_list(p, &e);
        for (size_t i = 0; l && i < pop3_listing_count(l); i++)
                MUST(pop3_listing_item(l, i, &item, &e));
        pop3_listing_free(l);
        pop3_free(p);
}

static void read_lines(struct str in)
{
        struct err e;
        struct lines *l = lines_new(stream_memory(in, NULL, &e), 1000, &e);
        struct str line;
        bool bare;

        MUST(l);
        while (lines_read(l, 8192, &line, &bare, &e))
                ;
        lines_free(l);
}

static void read_smtp(struct str in)
{
        struct smarthost h = { .name = STR("default"), .host = STR("h"), .port = 25, .tls = TLS_NONE, .helo = STR("me"), .timeout_ms = 1000 };
        struct smtp_recipient to = { .address = STR("a@x.org") };
        struct err e;
        struct smtp *s = smtp_new(lines_new(stream_memory(in, NULL, &e), 1000, &e), &h, &e);
        struct arena *a = arena_new(0);
        struct backing *b = backing_memory(mem_dup("Subject: a\n\nb\n", 14), 14);

        MUST(a && b);
        if (s)
                (void)!smtp_send(s, STR("me@x.org"), &to, 1, (struct range){ b, 0, 14 }, a, &e);
        smtp_close(s);
        backing_unref(b);
        arena_free(a);
}

static void read_dots(struct str in)
{
        char *out = mem_alloc(3 * in.n + 16);
        struct dot d = { 0 };
        struct stuff s = { 0 };
        size_t wrote;

        MUST(out);
        for (size_t at = 0; at < in.n && d.state != DOT_DONE;)
                at += dot_unstuff(&d, str_first(str_from(in, at), 4096), out, &wrote);
        wrote = dot_stuff(&s, in, out);
        dot_stuff_end(&s, out + wrote);
        mem_free(out);
}

static void read_source(int fd)
{
        struct err e;
        struct source *s = mbox_open(fd, STR("cost"), &limits_default, "/tmp", &e);
        struct message *m = NULL;

        MUST(s);
        while (s->ops->next(s, &m, &e) && m)
                message_free(m);
        source_free(s);
}

static void read_mbox(struct str in)
{
        int fd = memfd_create("mbox", MFD_CLOEXEC);

        MUST(fd >= 0 && write(fd, in.p, in.n) == (ssize_t)in.n && lseek(fd, 0, SEEK_SET) == 0);
        read_source(fd);
}

static void read_pipe(struct str in) /* at most what a pipe holds */
{
        int fd[2];

        MUST(in.n <= 65536 && pipe(fd) == 0 && write(fd[1], in.p, in.n) == (ssize_t)in.n);
        close(fd[1]);
        read_source(fd[0]);
}

static void read_sequences(struct str in)
{
        struct sequences s = { 0 };
        struct err e;
        char out[8];

        MUST(sequences_read(&s, in, &e));
        for (uint64_t i = 1; i < 50; i++)
                sequences_flags(&s, i, out);
        sequences_free(&s);
}

static void read_log(struct str in)
{
        char out[8192];

        log_line(LOG_ERROR, in);
        log_escape(in, out, sizeof out);
}

/* Each message says that it ends where the file does. */
static void far_lengths(struct buf *out, unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                MUST(buf_printf(out, "From a@b Mon Nov 23 05:41:00 2026\nContent-Length: %u\n\nx\n\n", (n - i) * 64));
}

static void listing(struct buf *out, unsigned n, const char *list, const char *uidl)
{
        MUST(buf_printf(out, "+OK\r\n-ERR\r\n+OK\r\n+OK\r\n"));
        cost_repeat(out, str_of(list), n);
        MUST(buf_printf(out, ".\r\n+OK\r\n"));
        cost_repeat(out, str_of(uidl), n);
        MUST(buf_printf(out, ".\r\n"));
}

static void list_equal_uids(struct buf *out, unsigned n) { listing(out, n, "1\1 100\r\n", "1\1 same\r\n"); }
static void list_uids(struct buf *out, unsigned n) { listing(out, n, "1\1 100\r\n", "1\1 uid\1\r\n"); }
static void list_without_uids(struct buf *out, unsigned n) { listing(out, n, "1\1 100\r\n", "1\1 \r\n"); }
static void list_strangers(struct buf *out, unsigned n) { listing(out, n, "1\1 100\r\n", "2\1 uid\1\r\n"); }

static void list_backwards(struct buf *out, unsigned n)
{
        MUST(buf_printf(out, "+OK\r\n-ERR\r\n+OK\r\n+OK\r\n"));
        for (unsigned i = n; i > 0; i--)
                MUST(buf_printf(out, "%u 100\r\n", i));
        MUST(buf_printf(out, ".\r\n+OK\r\n"));
        for (unsigned i = 1; i <= n; i++)
                MUST(buf_printf(out, "%u u%u\r\n", i, i));
        MUST(buf_printf(out, ".\r\n"));
}

static void falling_ranges(struct buf *out, unsigned n)
{
        MUST(buf_add_str(out, STR("unseen:")));
        for (unsigned i = n; i > 0; i--)
                MUST(buf_printf(out, " %u-%u", i * 3, i * 3 + 1));
}

#define ROW(read, name, n, head, unit, tail) { name, read, n, { head, sizeof head - 1 }, { unit, sizeof unit - 1 }, { tail, sizeof tail - 1 }, NULL }
#define LINES(...) ROW(read_lines, __VA_ARGS__)
#define LISTING(...) ROW(read_listing, __VA_ARGS__)
#define SMTP(...) ROW(read_smtp, __VA_ARGS__)
#define DOTS(...) ROW(read_dots, __VA_ARGS__)
#define MBOX(...) ROW(read_mbox, __VA_ARGS__)
#define PIPE(...) ROW(read_pipe, __VA_ARGS__)
#define SEQUENCES(...) ROW(read_sequences, __VA_ARGS__)
#define LOG(...) ROW(read_log, __VA_ARGS__)
#define FROM "From a@b Mon Nov 23 05:41:00 2026\n"

const struct pattern cost_wires[] = {
        LINES("P lines", 4000, "", "a\r\n", ""),
        LINES("P03 a line without end", 200000, "", "a", ""),
        LINES("P lines of CR", 1500, "", "\r\r\r\n", ""),
        LISTING("P03 a greeting without end", 200000, "+OK ", "a", ""),
        { .name = "P10 equal UIDs", .read = read_listing, .n = 500, .make = list_equal_uids },
        { .name = "P12 UIDs", .read = read_listing, .n = 500, .make = list_uids },
        { .name = "P13 blank UIDs", .read = read_listing, .n = 500, .make = list_without_uids },
        { .name = "P15 the list backwards", .read = read_listing, .n = 500, .make = list_backwards },
        { .name = "P15 UIDs of other messages", .read = read_listing, .n = 500, .make = list_strangers },
        LISTING("P31 capabilities", 200, "+OK\r\n+OK\r\n", "X-CAPABILITY \1\r\n", ".\r\n"),
        SMTP("S06 reply lines", 2000, "220 h\r\n", "250-x\1\r\n", "250 x\r\n"),
        SMTP("S06 a reply line without end", 200000, "220 ", "x", "\r\n"),
        DOTS("P21 dots", 3000, "", "..\r\n", ""),
        DOTS("P21 dots in a row", 200000, "", ".", "\r\n"),
        DOTS("P22 almost the end", 3000, "", "\n.\r\r.\n", ""),
        DOTS("P23 CR and NUL", 3000, "", "\r\0\n", ""),
        MBOX("B01 lines that begin with From", 2000, FROM, "From here\n", ""),
        MBOX("B01 lines that begin with From, after empty lines", 2000, FROM, "\nFrom here\n", ""),
        MBOX("B01 small messages", 200, "", FROM "Subject: a\n\nb\n\n", ""),
        MBOX("B01 quoted lines", 2000, FROM, ">From a\n>>From b\n", ""),
        MBOX("B01 quote marks", 60000, FROM, ">", "\n"),
        MBOX("B01 lines almost long enough to be From_ lines", 30, FROM, "\nFrom Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon Mon\n", ""),
        MBOX("B02 lengths that are wrong", 200, "", FROM "Content-Length: 99999\n\nb\n\n", ""),
        MBOX("B02 lengths that are huge", 200, "", FROM "Content-Length: 99999999999999999999\n\nb\n\n", ""),
        { .name = "B02 lengths to the end of the file", .read = read_mbox, .n = 150, .make = far_lengths },
        { .name = "B02 lengths to the end of a pipe", .read = read_pipe, .n = 150, .make = far_lengths },
        MBOX("B04 CRLF", 2000, FROM, "abc\r\n", ""),
        MBOX("B04 CR alone", 8000, FROM, "\r", ""),
        MBOX("B04 NUL", 60000, FROM, "\0", ""),
        MBOX("B04 empty lines", 60000, FROM, "\n", ""),
        PIPE("B04 empty lines before the first message", 8000, "", "\n", FROM "\nx\n"),
        MBOX("B05 header lines that nothing ends", 3000, FROM, "Status: R\n", ""),
        MBOX("B deleted messages", 200, "From - Mon Nov 23 05:41:00 2026\n\nx\n\n", "From - Mon Nov 23 05:41:00 2026\nX-Mozilla-Status: 0008\n\nb\n\n", ""),
        SEQUENCES("B MH sequences", 3000, "unseen:", " \1", "\n"),
        SEQUENCES("B MH sequences again and again", 600, "", "unseen: \1\n", ""),
        { .name = "B MH sequences backwards", .read = read_sequences, .n = 1000, .make = falling_ranges },
        LOG("L06 a line of controls", 4000, "", "\x1b\n", ""),
        { .name = NULL },
};
