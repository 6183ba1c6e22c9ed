/* What a server says, whatever is asked: sending comes to its end; nobody is called accepted, nor the outcome unknown, unless the final
 * dot went out, and then the mail went out whole; without it nothing of the kind is said. Behind a NUL stands the mail. */
#include "core/dot.h"
#include "core/log.h"
#include "core/smtp.h"
#include "tests/fuzz/fuzz.h"

enum { PEOPLE = 3 };

static void silent(void *ctx, enum log_level level, struct str line)
{
        (void)ctx, (void)level;
        MUST(without_controls(line, ""));
}

/* The mail as it goes over the wire, its end included. */
static struct buf stuffed(struct str mail)
{
        struct buf out = BUF_INIT;
        struct stuff s = { 0 };

        MUST(buf_reserve(&out, 3 * mail.n + 10));
        out.n = dot_stuff(&s, mail, out.p);
        out.n += dot_stuff_end(&s, out.p + out.n);
        return out;
}

static void check_results(const struct smtp_recipient *to, struct str said, struct str sent, struct str mail)
{
        struct buf wire = stuffed(mail);
        bool whole = str_find_str(sent, buf_str(&wire)) < sent.n && str_find_str(sent, STR("DATA\r\n")) < sent.n;

        for (size_t i = 0; i < PEOPLE; i++) {
                MUST(without_controls(to[i].answer, "") && utf8_valid(to[i].answer));
                if (to[i].result == SMTP_ACCEPTED || to[i].result == SMTP_UNKNOWN)
                        MUST(whole);
                if (to[i].result == SMTP_ACCEPTED)
                        MUST(str_starts(to[i].answer, STR("2")) && str_find_str(said, STR("354")) < said.n);
                if (to[i].result == SMTP_REFUSED)
                        MUST(to[i].answer.n > 0); /* the server's words, or ours: a mail that it cannot take is not begun */
        }
        buf_free(&wire);
}

/* Commands hold nothing but what we put there. */
static void check_commands(struct str sent)
{
        unsigned people = 0;

        while (sent.n > 0) {
                struct str line = str_take_line(&sent);

                if (str_eq(line, STR("DATA")))
                        break;
                MUST(without_controls(line, ""));
                people += str_starts(line, STR("RCPT TO:"));
        }
        MUST(people <= PEOPLE);
}

static void talk(struct smtp *s, struct str said, struct buf *sent, struct str text)
{
        struct smtp_recipient to[PEOPLE] = { { .address = STR("a@x.org") }, { .address = STR("b@x.org") }, { .address = STR("c@x.org") } };
        struct arena *a = fuzz_arena();
        struct backing *b = backing_memory(fuzz_copy(text), text.n);
        struct err e = { 0 };

        MUST(b);
        if (!smtp_send(s, STR("me@example.com"), to, PEOPLE, (struct range){ b, 0, text.n }, a, &e))
                MUST(e.code != ERR_NONE && e.text[0]);
        check_results(to, said, buf_str(sent), text);
        backing_unref(b);
        arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char *const mechanisms[] = { "", "plain", "login" };
        struct str text = fuzz_str(data, size), said = str_take(&text, '\0');
        struct dice d = dice_of(said);
        struct smarthost h = {
                .name = STR("default"), .host = STR("smtp.example.com"), .port = 25, .tls = TLS_NONE, .helo = STR("me.example"),
                .auth = str_of(mechanisms[dice_roll(&d, 3)]), .timeout_ms = 1000,
        };
        struct buf sent = BUF_INIT;
        struct err e = { 0 };
        struct smtp *s;

        log_set_sink(silent, NULL);
        if (dice_roll(&d, 2))
                h.user = STR("me"), h.password = secret_literal(STR("pw"));
        s = smtp_new(lines_new(stream_memory(said, &sent, &e), 1000, &e), &h, &e);
        if (s)
                talk(s, said, &sent, text.n ? text : STR("Subject: x\n\n.hello\n"));
        else
                MUST(e.code != ERR_NONE && e.text[0]);
        smtp_close(s);
        check_commands(buf_str(&sent));
        secret_unref(h.password);
        buf_free(&sent);
        return 0;
}
