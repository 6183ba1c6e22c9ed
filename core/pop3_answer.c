/* The answer to one command: a message, a header, a line; and what follows from it for the row of the table. */
#include "core/log.h"
#include "core/pop3_int.h"
#include "core/sys.h"

enum {
        STRAY_LINES_MAX = 16,
        EXACT_MIN = 4, /* sizes that were right to the byte, before one that is not says anything */
};

static struct flight *head(struct fetch *f)
{
        return &f->ring[f->fly_head % (WINDOW_COMMANDS + 1)];
}

static void land(struct fetch *f)
{
        f->expected -= head(f)->expected;
        f->fly_head++;
        f->fly_n--;
}

/* One at a time, lines before the status are skipped; else they mean that answers have been miscounted. */
static bool read_status(struct fetch *f, struct reply *r, bool *doubtful, struct err *e)
{
        lines_answer_begins(f->p->l);
        for (int i = 0;; i++) {
                if (pop3_status(f->p, r, e))
                        return true;
                if (e->code != ERR_PROTO || (f->single && i >= STRAY_LINES_MAX))
                        return false;
                if (!f->single)
                        return *doubtful = true;
        }
}

/* Its content is the mark's: it is the message we know, RETRieved or checked in this session, so DELE is safe. */
static bool confirmed(struct fetch *f, struct mail *m, struct err *e)
{
        if (m->doubted)
                fetch_doubt_ends(f, m, m->hashes->content);
        m->state = mail_due(f, m) && !f->o.dry ? MAIL_DOOMED : MAIL_KNOWN;
        return fetch_queue(f, m, e);
}

/* What was handed out under m's UID, if anything, was another message. This one may have been, under the UID of a third. */
static bool mistaken(struct fetch *f, struct mail *m, struct message *msg, const uint8_t content[DIGEST_SIZE], struct err *e)
{
        uint8_t header[DIGEST_SIZE];

        m->state = MAIL_WANT;
        if (!fetch_forget(f, m, e))
                return false;
        if (!fetch_doubt_ends(f, m, content))
                return true;
        return message_identity(msg, header, e) && fetch_mark_given(f, m, header, content, e) && confirmed(f, m, e);
}

/* The UID of a known message, on another one. */
static bool impostor(struct fetch *f, struct mail *m, struct err *e)
{
        log_info("%.*s: message %u has a known UID, but is another message", STR_FMT(f->s.name), m->number);
        m->state = MAIL_WANT;
        if (f->s.skipped > 0) /* one that got its row in a later session was never counted */
                f->s.skipped--;
        f->s.total_messages++;
        f->s.total_bytes += m->size;
        return fetch_forget(f, m, e);
}

static bool identify_by_message(struct fetch *f, struct mail *m, struct message *msg, const uint8_t content[DIGEST_SIZE], struct err *e)
{
        uint8_t header[DIGEST_SIZE];

        if (!message_identity(msg, header, e))
                return false;
        if (m->state == MAIL_WANT && m->hashes && hash_same(m->hashes->header, header)) {
                memcpy(m->hashes->content, content, DIGEST_SIZE);
                return true; /* as TOP had said */
        }
        return fetch_identify(f, m, header, content, e) && (m->state != MAIL_CHECK || confirmed(f, m, e));
}

/* Is it new? Afterwards only MAIL_WANT is handed out. */
static bool verify(struct fetch *f, struct mail *m, struct message *msg, const uint8_t content[DIGEST_SIZE], struct err *e)
{
        if (m->verify && m->mark && m->hashes && hash_same(m->hashes->content, content))
                return confirmed(f, m, e);
        if (m->doubted)
                return mistaken(f, m, msg, content, e);
        if (m->verify && m->mark && m->hashes)
                return impostor(f, m, e);
        if (m->hashes || m->state == MAIL_UNSURE)
                return identify_by_message(f, m, msg, content, e);
        m->state = MAIL_WANT;
        return true;
}

/* Much shorter than LIST says, in an account whose sizes are otherwise right. */
static bool is_short(struct fetch *f, const struct mail *m, const struct body *b)
{
        uint64_t got = b->octets;
        bool less = m->size > 0 && got < m->size - m->size / 4, more = m->size > 0 && got > m->size + m->size / 4;

        less || more ? f->differ++ : f->agree++;
        return less && !f->la.sizes_differ && f->differ <= f->agree + 1;
}

/* Longer is no cut; but where sizes are otherwise right it is worth a word. */
static bool is_longer(const struct fetch *f, const struct mail *m, const struct body *b)
{
        return m->size > 0 && b->octets / 10 >= m->size && !f->la.sizes_differ && f->differ <= f->agree + 1;
}

/* A little shorter, in an account whose sizes are exact (but for this one, which is counted already), and it ends inside an open multipart. */
static bool ends_open(struct fetch *f, const struct mail *m, const struct body *b, struct message *msg)
{
        const char *const *list;
        struct err e;
        size_t n;

        if (b->octets >= m->size || f->exact < EXACT_MIN || f->exact < 16 * (f->inexact - 1) || !message_parse(msg, &e))
                return false;
        list = message_defects(msg, &n);
        while (n > 0)
                if (strcmp(list[--n], "truncated.multipart") == 0)
                        return true;
        return false;
}

/* UW-IMAP keeps its own data as the first message of a mailbox. */
static bool is_pseudo(const struct mail *m, const struct body *b)
{
        struct str s = str_first(buf_str(&b->mem), 2048);

        return m->number == 1 && b->fd < 0 && str_find_str(s, STR("\nX-IMAP:")) < s.n && str_find_str(s, STR("FOLDER INTERNAL DATA")) < s.n;
}

static struct message *make_message(struct fetch *f, struct mail *m, struct body *b, struct err *e)
{
        struct backing *in = b->fd >= 0 ? backing_fd(b->fd) : backing_memory(b->mem.p, b->mem.n);
        struct origin o = {
                .source = f->s.name, .account = f->s.name, .uid = m->uid, .fetched = sys_now(), .number = (uint64_t)(m - f->mails) + 1,
                .occurrence = m->occurrence, .suspect = m->suspect, .longer = is_longer(f, m, b),
        };
        struct message *msg;

        if (b->fd < 0)
                b->mem = (struct buf)BUF_INIT; /* the backing has taken it, also where it failed */
        b->fd = -1;
        if (!in)
                return err_nomem(e), NULL;
        msg = message_new((struct range){ in, 0, b->n }, &o, &f->lim, e);
        backing_unref(in);
        if (msg)
                message_set_hash(msg, b->hash);
        return msg;
}

static void give(struct fetch *f, struct mail *m, struct message *msg, const struct body *b, struct message **out)
{
        if (b->odd_end)
                message_add_defect(msg, "missing.end");
        m->state = MAIL_GIVEN;
        m->first_seen = m->first_seen ? m->first_seen : f->o.now;
        f->given++;
        f->barren = 0;
        f->progress = true;
        f->s.done_messages++;
        f->s.done_bytes += b->n;
        *out = msg;
}

/* Set aside, to be fetched once more when the others are through. */
static bool once_more(struct fetch *f, struct mail *m, struct err *e)
{
        log_info("%.*s: message %u is shorter than listed: it is fetched once more", STR_FMT(f->s.name), m->number);
        m->again = true;
        return fetch_queue(f, m, e);
}

/* What was found out about its UID, or its end, came after the origin was made. */
static bool rename_message(struct fetch *f, const struct mail *m, struct message **msg, const uint8_t hash[DIGEST_SIZE], struct err *e)
{
        struct origin o = *message_origin(*msg);
        struct message *named;

        if (o.occurrence == m->occurrence && str_eq(o.uid, m->uid) && o.suspect == m->suspect)
                return true;
        o.suspect = m->suspect;
        o.uid = m->uid;
        o.occurrence = m->occurrence;
        named = message_new(message_range(*msg), &o, &f->lim, e);
        message_free(*msg);
        *msg = named;
        if (named)
                message_set_hash(named, hash);
        return named;
}

static bool take_message(struct fetch *f, struct mail *m, struct body *b, struct message **out, struct err *e)
{
        struct message *msg = make_message(f, m, b, e);
        bool ok = msg;

        if (ok && !m->suspect && ends_open(f, m, b, msg)) {
                m->suspect = m->again;
                if (!m->again) {
                        message_free(msg);
                        f->asked--;
                        return once_more(f, m, e);
                }
        }
        if (ok && (m->verify || m->hashes || m->doubted))
                ok = verify(f, m, msg, b->hash, e);
        if (ok && m->state == MAIL_WANT && f->finishing) { /* new after all; nobody takes it now */
                ok = fetch_queue(f, m, e);
        } else if (ok && m->state == MAIL_WANT) {
                ok = rename_message(f, m, &msg, b->hash, e);
                if (ok)
                        give(f, m, msg, b, out);
                return ok;
        }
        message_free(msg);
        f->asked--;
        return ok;
}

static bool got_body(struct fetch *f, struct mail *m, struct body *b, struct message **out, struct err *e)
{
        bool less;

        if (b->n == 0 || is_pseudo(m, b)) {
                f->asked--;
                if (b->n == 0)
                        fetch_trouble(f, m, ERR_PROTO, "the server sent nothing as its content");
                else
                        m->state = MAIL_LEFT, f->s.skipped++;
                return true;
        }
        less = is_short(f, m, b);
        if (less && !m->again) {
                f->asked--;
                return once_more(f, m, e);
        }
        m->suspect = less || b->odd_end;
        return take_message(f, m, b, out, e);
}

/* An answer that is missing, or one too many, makes each later one stand for the message before it, or behind it, and DELE would then hit mail
 * that nobody has read. Where sizes are otherwise exact, a message that has its neighbour's size gives it away; else see pop3_doubt.c. */
static bool slipped(struct fetch *f, const struct mail *m, const struct body *b)
{
        const struct flight *next = &f->ring[(f->fly_head + 1) % (WINDOW_COMMANDS + 1)];
        uint64_t got = b->octets;

        if (got == m->size) {
                f->exact++;
                return false;
        }
        f->inexact += !m->again;
        return (got == f->size_before || (f->fly_n > 1 && next->kind == FLY_RETR && f->mails[next->mail].size == got)) &&
               f->exact > 16 * (f->inexact - 1);
}

static bool retr_answer(struct fetch *f, const struct reply *r, struct message **out, bool *doubtful, struct err *e)
{
        uint32_t i = head(f)->mail;
        struct mail *m = &f->mails[i];
        struct body b;
        bool ok;

        if (!r->ok) {
                f->size_before = m->size;
                fetch_refused(f, m, r->text);
                f->asked--;
                land(f);
                return true;
        }
        if (!body_read(f, m->size, &b, doubtful, e))
                return err_in(e, "fetching message %u", m->number);
        if (!*doubtful && slipped(f, m, &b)) {
                *doubtful = true;
                body_free(&b);
        }
        if (*doubtful)
                return true;
        f->size_before = m->size;
        land(f);
        ok = got_body(f, m, &b, out, e);
        body_free(&b);
        return ok;
}

/* Only a hint: where TOP is refused, or gives no header, the content decides. */
static bool decide_by_content(struct fetch *f, struct mail *m, struct err *e)
{
        m->verify = true;
        return fetch_queue(f, m, e);
}

static bool by_header(struct fetch *f, struct mail *m, const uint8_t header[DIGEST_SIZE], struct err *e)
{
        bool twin = false;

        if (!hash_known(header))
                return decide_by_content(f, m, e);
        if (m->state == MAIL_UNSURE) {
                if (!fetch_identify(f, m, header, NULL, e))
                        return false;
                return m->state == MAIL_CHECK ? confirmed(f, m, e) : fetch_queue(f, m, e);
        }
        if (m->hashes && hash_same(m->hashes->header, header))
                return confirmed(f, m, e);
        if (!m->doubted && !fetch_next_twin(f, m, header, &twin, e))
                return false;
        if (twin)
                return m->state == MAIL_CHECK ? confirmed(f, m, e) : fetch_queue(f, m, e);
        m->state = MAIL_WANT; /* perhaps another message, perhaps a server whose TOP is wrong: its content tells */
        return decide_by_content(f, m, e);
}

static bool top_answer(struct fetch *f, const struct reply *r, bool *doubtful, struct err *e)
{
        struct mail *m = &f->mails[head(f)->mail];
        uint8_t header[DIGEST_SIZE];

        if (!r->ok) {
                f->no_top |= !f->p->capa.top;
                land(f);
                return decide_by_content(f, m, e);
        }
        if (!body_read_header(f, header, doubtful, e))
                return err_in(e, "TOP");
        if (*doubtful)
                return true;
        land(f);
        return (m->state != MAIL_UNSURE && m->state != MAIL_CHECK) || by_header(f, m, header, e);
}

static void dele_answer(struct fetch *f, const struct reply *r)
{
        struct mail *m = &f->mails[head(f)->mail];

        m->state = r->ok ? MAIL_GONE : MAIL_KNOWN;
        if (r->ok) {
                f->gone_n++;
                f->gone_bytes += m->size;
        } else {
                m->deled = true;
                log_warn("%.*s: DELE of message %u: the server said \"%.*s\"; it is tried again in the next run", STR_FMT(f->s.name),
                         m->number, STR_FMT(str_first(r->text, SAID_MAX)));
        }
        land(f);
}

bool fetch_answer(struct fetch *f, struct message **out, bool *doubtful, struct err *e)
{
        struct reply r;

        if (!read_status(f, &r, doubtful, e))
                return false;
        if (*doubtful)
                return true;
        switch (head(f)->kind) {
        case FLY_RETR: return retr_answer(f, &r, out, doubtful, e);
        case FLY_TOP: return top_answer(f, &r, doubtful, e);
        case FLY_DELE: dele_answer(f, &r); return true;
        case FLY_NOOP: land(f); return true;
        }
        return true;
}
