/* Which message of the list is which: by UID where it is the message's own, else by the hash of its header, and in the end by content.
 * What the ledger knows decides what happens to it. */
#include "core/pop3_int.h"

#include <stdio.h>

#include "core/log.h"
#include "core/mem.h"

enum {
        TWINS_MAX = 1000,      /* messages under one key that are told apart; more are left alone */
        GAP_MAX = 4,           /* marks that may be missing (aged, forgotten) in between */
        KEY_MAX = 600,
};

bool hash_known(const uint8_t hash[DIGEST_SIZE])
{
        static const uint8_t none[DIGEST_SIZE];

        return memcmp(hash, none, DIGEST_SIZE) != 0;
}

bool hash_same(const uint8_t a[DIGEST_SIZE], const uint8_t b[DIGEST_SIZE])
{
        return hash_known(a) && memcmp(a, b, DIGEST_SIZE) == 0;
}

static bool keep_hashes(struct fetch *f, struct mail *m, const uint8_t *header, const uint8_t *content, struct err *e)
{
        if (!m->hashes && !(m->hashes = arena_alloc(f->rows, sizeof *m->hashes)))
                return err_nomem(e);
        if (header)
                memcpy(m->hashes->header, header, DIGEST_SIZE);
        if (content)
                memcpy(m->hashes->content, content, DIGEST_SIZE);
        return true;
}

/* A mark that says "deleted" while the message is there again means a restored mailbox, a reused UID, or a server that did not
 * delete: its header tells. */
static enum mail_state known_state(const struct fetch *f, const struct mail *m, const struct mark *k)
{
        if (k->state != MARK_SEEN)
                return MAIL_HELD;
        if (f->o.again && m->state == MAIL_UNSURE)
                return MAIL_WANT; /* once: not again after it was settled in this run */
        if (!hash_known(k->header_hash) || !hash_known(k->content_hash))
                return MAIL_KNOWN; /* marked without having been read: never deleted */
        if (k->deleted || m->doubted || (mail_due(f, m) && !f->o.dry))
                return MAIL_CHECK;
        return MAIL_KNOWN;
}

/* first = "new", or everything is to be marked: it is known from now on, was never read, and so is never deleted. */
static bool mark_unread(struct fetch *f, struct mail *m, const uint8_t *header, struct err *e)
{
        struct mark k = {
                .account = f->la.id, .uid = m->uid, .occurrence = m->occurrence, .state = MARK_SEEN, .size = m->size,
                .first_seen = f->o.now, .last_seen = f->o.now, .leave = MARK_LEAVE_ALWAYS,
        };

        if (header)
                memcpy(k.header_hash, header, DIGEST_SIZE);
        m->state = MAIL_KNOWN;
        m->leave = LEAVE_ALWAYS;
        f->s.skipped++;
        f->s.marked++;
        return f->o.dry || ledger_mark_put(f->ledger, &k, e);
}

static bool apply_mark(struct fetch *f, struct mail *m, const struct mark *k, struct err *e)
{
        if (k->state == MARK_REFUSED && f->o.mark) {
                f->s.skipped--; /* whoever asked counts it as well */
                return mark_unread(f, m, NULL, e);
        }
        if (k->state == MARK_REFUSED) {
                fetch_refused_before(f, m, k);
                return true;
        }
        m->mark = k->id;
        m->first_seen = k->first_seen;
        m->leave = (uint8_t)k->leave; /* the two enums agree, see pop3_source.c */
        m->leave_age = k->leave_age;
        m->state = (uint8_t)known_state(f, m, k);
        if (m->state == MAIL_WANT)
                m->leave = LEAVE_DEFAULT; /* what was said of it once is said again, or not */
        if (m->doubted && m->state == MAIL_CHECK && !fetch_doubt_given(f, k->content_hash, e))
                return false;
        return m->state != MAIL_CHECK || keep_hashes(f, m, k->header_hash, k->content_hash, e);
}

bool fetch_load_mark(struct fetch *f, struct mail *m, bool *found, struct err *e)
{
        struct arena *a = fetch_scratch(f, e);
        struct mark k;

        *found = false;
        if (!a || (m->uid.n > 0 && !ledger_mark(f->ledger, f->la.id, m->uid, m->occurrence, &k, found, a, e)))
                return false;
        return !*found || apply_mark(f, m, &k, e);
}

bool fetch_forget(struct fetch *f, struct mail *m, struct err *e)
{
        int64_t id = m->mark;

        m->mark = 0;
        m->first_seen = f->o.now;
        m->leave = LEAVE_DEFAULT;
        return id == 0 || f->o.dry || ledger_mark_forget(f->ledger, id, e);
}

bool fetch_mark_given(struct fetch *f, struct mail *m, const uint8_t header[DIGEST_SIZE], const uint8_t content[DIGEST_SIZE],
                      struct err *e)
{
        struct mark k = {
                .account = f->la.id, .uid = m->uid, .occurrence = m->occurrence, .state = MARK_SEEN, .size = m->size,
                .first_seen = m->first_seen, .last_seen = f->o.now, .leave = m->leave, .leave_age = m->leave_age,
        };

        memcpy(k.header_hash, header, DIGEST_SIZE);
        memcpy(k.content_hash, content, DIGEST_SIZE);
        return f->o.dry || ledger_mark_put(f->ledger, &k, e);
}

static bool starts_new(const struct fetch *f)
{
        return f->o.mark || (f->acc->first_new && f->la.fresh && !f->o.again);
}

/* A message that no mark knows. */
static bool new_mail(struct fetch *f, struct mail *m, const uint8_t *header, struct err *e)
{
        m->first_seen = f->o.now;
        if (starts_new(f))
                return mark_unread(f, m, header, e);
        m->state = MAIL_WANT;
        return true;
}

static struct str make_key(struct str uid, unsigned occurrence, char out[KEY_MAX])
{
        size_t n = uid.n < KEY_MAX - 16 ? uid.n : KEY_MAX - 16;

        memcpy(out, uid.p, n);
        return str_make(out, n + 1 + (size_t)snprintf(out + n, 16, "%c%u", 0, occurrence) - 1);
}

static struct mail *row_of_key(struct fetch *f, struct str uid, unsigned occurrence)
{
        char key[KEY_MAX];
        uintptr_t i = (uintptr_t)map_get(f->keyed, make_key(uid, occurrence, key));

        struct mail *m = i && i <= f->n ? &f->mails[i - 1] : NULL;

        return m && m->state != MAIL_ALIAS && m->occurrence == occurrence && str_eq(m->uid, uid) ? m : NULL; /* rows come and go */
}

static bool set_key(struct fetch *f, struct mail *m, unsigned occurrence, struct err *e)
{
        char key[KEY_MAX];
        uintptr_t i = (uintptr_t)(m - f->mails) + 1;

        m->occurrence = occurrence;
        m->keyed = true;
        return map_set(f->keyed, make_key(m->uid, occurrence, key), (void *)i, NULL) || err_nomem(e);
}

bool fetch_key(struct fetch *f, struct mail *m, struct err *e)
{
        return set_key(f, m, m->occurrence, e);
}

/* A message without a UID is filed under the hash of its header. */
static bool name_by_header(struct fetch *f, struct mail *m, const uint8_t header[DIGEST_SIZE], struct err *e)
{
        char hex[2 * DIGEST_SIZE + 1];

        if (m->uid.n > 0 && !m->named)
                return true;
        digest_hex(header, hex);
        m->uid = arena_printf(f->rows, "header-sha256:%s", hex);
        m->named = true;
        return m->uid.p || err_nomem(e);
}

static bool equal(const uint8_t *header, const uint8_t *content, const uint8_t known_header[DIGEST_SIZE],
                  const uint8_t known_content[DIGEST_SIZE])
{
        return content && hash_known(known_content) ? hash_same(known_content, content) : hash_same(known_header, header);
}

static void become_alias(struct fetch *f, struct mail *m, struct mail *row)
{
        row->number = m->number;
        row->size = m->size;
        row->touched = m->touched;
        if (m->retrieved == f->session)
                row->retrieved = m->retrieved;
        m->state = MAIL_ALIAS;
        m->number = 0;
}

/* What an alias stands for may have something due in this session. */
static bool wake(struct fetch *f, struct mail *m, struct err *e)
{
        bool found;

        if (m->deled && !m->doubted && m->state == MAIL_KNOWN)
                return true;
        if (m->state == MAIL_DOOMED || m->state == MAIL_GONE || m->state == MAIL_KNOWN || m->state == MAIL_CHECK) {
                m->state = MAIL_KNOWN;
                if (!fetch_load_mark(f, m, &found, e))
                        return false;
        }
        return fetch_queue(f, m, e);
}

/* A mark is claimed once: twins of the new list are not both the one message of the old. */
static bool claim(struct fetch *f, int64_t id, bool *first, struct err *e)
{
        char key[32];
        struct str k = str_make(key, (size_t)snprintf(key, sizeof key, "%c%lld", 0, (long long)id));

        *first = !map_get(f->keyed, k);
        return map_set(f->keyed, k, f, NULL) || err_nomem(e);
}

/* Every UID has changed: what has the content, or else the header, of a settled message is that message, and gets a mark under its new
 * UID. The old one ages. */
static bool recognise(struct fetch *f, struct mail *m, const uint8_t *header, const uint8_t *content, bool *known, struct err *e)
{
        struct arena *a = fetch_scratch(f, e);
        struct mark k;

        *known = false;
        if (!a || (content ? !ledger_mark_by_content(f->ledger, f->la.id, content, &k, known, a, e)
                           : !ledger_mark_by_header(f->ledger, f->la.id, header, &k, known, a, e)))
                return false;
        *known = *known && k.state == MARK_SEEN && equal(header, content, k.header_hash, k.content_hash);
        if (*known && !claim(f, k.id, known, e))
                return false;
        if (!*known)
                return true;
        f->moved_known++;
        k.uid = m->uid;
        k.occurrence = m->occurrence;
        k.deleted = false;
        k.last_seen = f->o.now;
        if (!f->o.dry && !ledger_mark_put(f->ledger, &k, e))
                return false;
        return apply_mark(f, m, &k, e);
}

/* Walks the rows and marks under m's key: the first equal one that no other message of this list has claimed is it; else it is new. Each is
 * claimed once, so equal twins are told apart by how many there are. */
static bool find_twin(struct fetch *f, struct mail *m, const uint8_t *header, const uint8_t *content, struct err *e)
{
        unsigned vacant = UINT32_MAX, gap = 0;
        bool known = false;

        for (unsigned occ = 0; occ < TWINS_MAX && gap < GAP_MAX; occ++) {
                struct mail *row = row_of_key(f, m->uid, occ);
                struct arena *a = fetch_scratch(f, e);
                bool found = false;
                struct mark k;

                if (row && row != m) {
                        if (row->number == 0 && row->hashes && equal(header, content, row->hashes->header, row->hashes->content)) {
                                become_alias(f, m, row);
                                return wake(f, row, e);
                        }
                        continue;
                }
                if (!a || !ledger_mark(f->ledger, f->la.id, m->uid, occ, &k, &found, a, e))
                        return false;
                if (found && equal(header, content, k.header_hash, k.content_hash))
                        return set_key(f, m, occ, e) && apply_mark(f, m, &k, e);
                if (!found && vacant == UINT32_MAX)
                        vacant = occ;
                gap = found ? 0 : gap + 1;
        }
        if (vacant == UINT32_MAX) {
                fetch_trouble(f, m, ERR_LIMIT, "more than %d messages that can't be told apart", TWINS_MAX);
                return true;
        }
        if (!set_key(f, m, vacant, e) || (f->moved && !recognise(f, m, header, content, &known, e)))
                return false;
        return known || new_mail(f, m, header, e);
}

bool fetch_next_twin(struct fetch *f, struct mail *m, const uint8_t header[DIGEST_SIZE], bool *found, struct err *e)
{
        *found = false;
        for (unsigned occ = 1; occ <= GAP_MAX && !m->keyed; occ++) {
                struct arena *a = fetch_scratch(f, e);
                struct mark k;

                if (!a || !ledger_mark(f->ledger, f->la.id, m->uid, occ, &k, found, a, e))
                        return false;
                *found = *found && !row_of_key(f, m->uid, occ) && hash_same(k.header_hash, header);
                if (*found)
                        return set_key(f, m, occ, e) && apply_mark(f, m, &k, e);
        }
        return true;
}

bool fetch_identify(struct fetch *f, struct mail *m, const uint8_t header[DIGEST_SIZE], const uint8_t *content, struct err *e)
{
        if (!name_by_header(f, m, header, e) || !keep_hashes(f, m, header, content, e))
                return false;
        if (!find_twin(f, m, header, content, e))
                return false;
        if (m->state == MAIL_KNOWN || m->state == MAIL_HELD || m->state == MAIL_CHECK) {
                f->s.skipped++;
                if (f->s.total_messages > 0) {
                        f->s.total_messages--;
                        f->s.total_bytes -= m->size < f->s.total_bytes ? m->size : f->s.total_bytes;
                }
        }
        return true;
}

/* f->rows gets a copy of what m points to. */
static struct mail *add_row(struct fetch *f, const struct mail *m, struct err *e)
{
        struct mail *row;

        if (f->n == f->room) {
                size_t room = f->room ? f->room * 2 : 256;
                struct mail *grown = mem_resize(f->mails, room * sizeof *grown);

                if (!grown)
                        return err_nomem(e), NULL;
                f->mails = grown;
                f->room = room;
        }
        row = &f->mails[f->n];
        *row = *m;
        if (m->uid.n > 0 && !(row->uid = arena_str(f->rows, m->uid)).p)
                return err_nomem(e), NULL;
        f->n++;
        return row;
}

static bool is_unsure(const struct pop3_item *it)
{
        return it->uid.n == 0 || it->twin;
}

static struct mail row_of(const struct pop3_item *it)
{
        return (struct mail){ .uid = it->uid, .size = it->size, .number = it->number, .state = MAIL_UNSURE, .unsure = is_unsure(it) };
}

static void count_in(struct fetch *f, const struct mail *m)
{
        f->s.total_messages++;
        f->s.total_bytes += m->size;
}

/* A message whose UID is its own. counted: it is in the totals already, unless it is known. It gets a row if there is anything to do. */
static bool sure_row(struct fetch *f, const struct pop3_item *it, bool counted, struct err *e)
{
        struct mail m = row_of(it);
        bool found;

        if (!fetch_load_mark(f, &m, &found, e) || (!found && !new_mail(f, &m, NULL, e)))
                return false;
        f->any_mark |= found;
        if (!found && m.state == MAIL_WANT && f->moved) {
                m.state = MAIL_UNSURE;
                m.unsure = true;
        }
        if (found && m.state != MAIL_WANT && f->session == 1)
                f->s.skipped++; /* later, it may be one of this run */
        if ((m.state == MAIL_WANT || m.state == MAIL_UNSURE) && (found || !counted))
                count_in(f, &m);
        if (m.state == MAIL_LEFT)
                return fetch_remember_done(f, &m, e); /* told once */
        if (m.state != MAIL_WANT && m.state != MAIL_UNSURE && m.state != MAIL_CHECK)
                return true;
        return add_row(f, &m, e) && fetch_queue(f, &f->mails[f->n - 1], e);
}

bool fetch_sure_row(struct fetch *f, const struct pop3_item *it, struct err *e)
{
        return sure_row(f, it, true, e);
}

static bool unsure_row(struct fetch *f, const struct pop3_item *it, struct err *e)
{
        struct mail m = row_of(it);

        return add_row(f, &m, e) && fetch_queue(f, &f->mails[f->n - 1], e);
}

/* Marks that were listed, some at a time. */
struct seen {
        int64_t *ids;
        size_t n;
};
enum { SEEN_AT_ONCE = 1 << 16 };

static bool note_seen(struct fetch *f, struct seen *s, struct err *e)
{
        bool ok = s->n == 0 || f->o.dry || ledger_mark_seen_now(f->ledger, s->ids, s->n, f->o.now, e);

        s->n = 0;
        return ok;
}

/* The look that every message of the first list gets, also one that has no row yet. */
static bool look_up(struct fetch *f, struct seen *s, const struct pop3_item *it, bool *found, struct err *e)
{
        struct arena *a = fetch_scratch(f, e);
        struct mark k;

        if (!a || !ledger_mark(f->ledger, f->la.id, it->uid, 0, &k, found, a, e))
                return false;
        if (!*found)
                return true;
        f->any_mark = true;
        s->ids[s->n++] = k.id;
        return s->n < SEEN_AT_ONCE || note_seen(f, s, e);
}

static bool is_there(void *ctx, const struct mark *k)
{
        return *(bool *)ctx = k->deleted; /* goes on while all are */
}

/* Not one UID is known, and mail that was never deleted should be there. */
static bool look_for_move(struct fetch *f, struct err *e)
{
        unsigned states = 1 << MARK_SEEN | 1 << MARK_HELD | 1 << MARK_QUARANTINED;
        bool all_deleted = true;

        if (f->any_mark || pop3_listing_count(f->list) == 0 || f->o.again || starts_new(f))
                return true;
        if (!ledger_marks(f->ledger, f->la.id, states, is_there, &all_deleted, e))
                return false;
        f->moved = !all_deleted;
        for (size_t i = 0; f->moved && i < f->n; i++)
                if (f->mails[i].state == MAIL_WANT) {
                        f->mails[i].state = MAIL_UNSURE; /* queued already, in the same queue */
                        f->mails[i].unsure = true;
                }
        return true;
}

/* Once all that was there is marked, what comes from now on is new, even if this run is cut off. Where a message is still unsure, it
 * stays a first run: else the next one would fetch it. */
static bool note_begun(struct fetch *f, struct err *e)
{
        struct arena *a = fetch_scratch(f, e);
        struct ledger_account now;

        for (size_t i = 0; i < f->n; i++)
                if (f->mails[i].state == MAIL_UNSURE)
                        return true;
        if (!a || !ledger_account(f->ledger, f->la.name, f->la.mailbox, &now, a, e))
                return false;
        now.fresh = false;
        return ledger_account_save(f->ledger, &now, e);
}

/* Rows for as many as there is room for; the others are counted, and looked at in their turn. */
static bool first_rows(struct fetch *f, struct seen *s, struct err *e)
{
        size_t n = pop3_listing_count(f->list);
        struct pop3_item it;
        bool found;

        for (size_t i = 0; i < n; i++) {
                if (!pop3_listing_item(f->list, i, &it, e))
                        return false;
                if (is_unsure(&it)) {
                        count_in(f, &(struct mail){ .size = it.size });
                        if (!unsure_row(f, &it, e))
                                return false;
                        continue;
                }
                if (!look_up(f, s, &it, &found, e))
                        return false;
                if (f->pending > 0 || f->n >= fetch_rows_max(f)) {
                        if (f->pending++ == 0)
                                f->next_item = i;
                        if (!found)
                                count_in(f, &(struct mail){ .size = it.size });
                } else if (!sure_row(f, &it, false, e)) {
                        return false;
                }
        }
        return note_seen(f, s, e);
}

static bool first_match(struct fetch *f, struct err *e)
{
        bool one = starts_new(f) && !f->o.dry, ok; /* thousands of marks at once: one transaction */
        struct seen s = { .ids = mem_alloc(SEEN_AT_ONCE * sizeof *s.ids) };

        if (!s.ids)
                return err_nomem(e);
        ok = !one || ledger_begin(f->ledger, e);
        if (ok && (!first_rows(f, &s, e) || (one && !note_begun(f, e)))) {
                ok = false;
                if (one)
                        ledger_rollback(f->ledger);
        }
        mem_free(s.ids);
        if (!ok || (one && !ledger_commit(f->ledger, e)))
                return false;
        if (f->limit > 0 && f->s.total_messages > f->limit) {
                f->s.total_messages = f->limit;
                f->s.total_bytes = 0; /* not known */
        }
        return look_for_move(f, e);
}

struct map *fetch_rows_by_uid(struct fetch *f, struct err *e)
{
        struct map *rows = map_new();

        for (size_t i = 0; rows && i < f->n; i++) {
                struct mail *m = &f->mails[i];

                if (m->state == MAIL_ALIAS || m->uid.n == 0)
                        continue;
                if (!map_set(rows, m->uid, (void *)(uintptr_t)(i + 1), NULL)) {
                        map_free(rows, NULL);
                        rows = NULL;
                }
        }
        if (!rows)
                err_nomem(e);
        return rows;
}

/* Numbers live one session: every row gets its new one, or none. */
static void forget_numbers(struct fetch *f)
{
        while (f->n > 0 && f->mails[f->n - 1].state == MAIL_ALIAS)
                f->n--;
        for (size_t i = 0; i < f->n; i++) {
                struct mail *m = &f->mails[i];

                m->number = 0;
                f->pending += m->state == MAIL_UNSURE && m->uid.n > 0; /* which may be its own now, or was all the time: fetch_more looks */
                if (m->state == MAIL_UNSURE || (m->state == MAIL_LEFT && !m->uid.n))
                        m->state = MAIL_ALIAS; /* it will stand in the new list, as unsure as before */
        }
}

/* Only rows, and what was unsure and must be looked at again; the rest comes when it is asked for, by fetch_more. */
static bool match_again(struct fetch *f, const struct map *rows, const struct pop3_item *it, struct err *e)
{
        uintptr_t i = it->uid.n ? (uintptr_t)map_get(rows, it->uid) : 0;
        struct mail *m = i ? &f->mails[i - 1] : NULL;

        if (is_unsure(it) || (m && row_of_key(f, m->uid, m->occurrence)))
                return unsure_row(f, it, e);
        if (!m)
                return true;
        m->number = it->number;
        m->size = it->size;
        return wake(f, m, e);
}

static bool second_match(struct fetch *f, struct err *e)
{
        struct map *rows;
        struct pop3_item it;
        bool ok = true;

        forget_numbers(f);
        f->next_item = 0;
        if (!(rows = fetch_rows_by_uid(f, e)))
                return false;
        for (size_t i = 0; ok && i < pop3_listing_count(f->list); i++)
                ok = pop3_listing_item(f->list, i, &it, e) && match_again(f, rows, &it, e);
        for (size_t i = 0; ok && i < f->n; i++)
                if (f->mails[i].state == MAIL_GONE && f->mails[i].number == 0)
                        f->mails[i].state = MAIL_KNOWN; /* its DELE lasted, though no QUIT was answered */
        map_free(rows, NULL);
        return ok;
}

bool fetch_match(struct fetch *f, struct err *e)
{
        f->todo.n = f->dele.n = f->todo.head = f->dele.head = 0;
        return f->listed ? second_match(f, e) : first_match(f, e);
}
