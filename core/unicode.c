#include "core/unicode.h"

#include "core/charset.h"
#include "core/fold_table.h"
#include "core/nfc_table.h"

enum {
        MARKS_MAX = 32,   /* marks kept on one character */
        DECOMPOSED_MAX = 4, /* the longest canonical decomposition of one character */
        S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7, /* Hangul, Unicode 3.12 */
        L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT,
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

uint32_t utf8_fold(uint32_t cp)
{
        size_t low = 0, high = COUNT(fold_ranges);

        if (cp < 0x80)
                return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
        while (low < high) {
                size_t mid = (low + high) / 2;
                const struct fold_range *r = &fold_ranges[mid];

                if (cp < r->first)
                        high = mid;
                else if (cp > r->last)
                        low = mid + 1;
                else
                        return (cp - r->first) % r->step == 0 ? (uint32_t)((int32_t)cp + r->delta) : cp;
        }
        return cp;
}

static unsigned class_of(uint32_t cp)
{
        size_t low = 0, high = COUNT(nfc_classes);

        if (cp < 0x300)
                return 0;
        while (low < high) {
                size_t mid = (low + high) / 2;

                if (cp < nfc_classes[mid].first)
                        high = mid;
                else if (cp > nfc_classes[mid].last)
                        low = mid + 1;
                else
                        return nfc_classes[mid].value;
        }
        return 0;
}

static const struct nfc_pair *decomposition(uint32_t cp)
{
        size_t low = 0, high = COUNT(nfc_pairs);

        if (cp < 0xc0)
                return NULL;
        while (low < high) {
                size_t mid = (low + high) / 2;

                if (cp < nfc_pairs[mid].cp)
                        high = mid;
                else if (cp > nfc_pairs[mid].cp)
                        low = mid + 1;
                else
                        return &nfc_pairs[mid];
        }
        return NULL;
}

/* The character that a and b make together, or 0. */
static uint32_t compose(uint32_t a, uint32_t b)
{
        size_t low = 0, high = COUNT(nfc_composed);

        if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT)
                return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
        if (a - S_BASE < S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE && b < T_BASE + T_COUNT)
                return a + (b - T_BASE);
        while (low < high) {
                size_t mid = (low + high) / 2;
                const struct nfc_pair *p = &nfc_pairs[nfc_composed[mid]];

                if (a < p->a || (a == p->a && b < p->b))
                        high = mid;
                else if (a > p->a || b > p->b)
                        low = mid + 1;
                else
                        return p->cp;
        }
        return 0;
}

/* Writes the full canonical decomposition of cp; returns its length. Only the first of a pair decomposes further. */
static size_t decompose(uint32_t cp, uint32_t out[DECOMPOSED_MAX])
{
        uint32_t tail[DECOMPOSED_MAX];
        size_t n = 0, tails = 0;
        const struct nfc_pair *p;

        if (cp - S_BASE < S_COUNT) {
                uint32_t s = cp - S_BASE;

                out[0] = L_BASE + s / (V_COUNT * T_COUNT);
                out[1] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
                out[2] = T_BASE + s % T_COUNT;
                return s % T_COUNT ? 3 : 2;
        }
        while ((p = decomposition(cp)) != NULL && tails < DECOMPOSED_MAX - 1) {
                if (p->b)
                        tail[tails++] = p->b;
                cp = p->a;
        }
        out[n++] = cp;
        while (tails > 0)
                out[n++] = tail[--tails];
        return n;
}

/* One starter and the marks behind it, in canonical order. */
struct cluster {
        uint32_t starter;
        bool any;
        unsigned marks;
        struct {
                uint32_t cp;
                unsigned class;
        } mark[MARKS_MAX];
};

static void put(uint32_t cp, struct buf *out)
{
        char u[4];

        buf_add(out, u, utf8_put(cp, u));
}

/* Composes the marks into the starter where they are not blocked (Unicode 3.11, D115). */
static void compose_marks(struct cluster *c)
{
        unsigned kept = 0, last = 0;

        if (!c->any)
                return;
        for (unsigned i = 0; i < c->marks; i++) {
                uint32_t whole = last < c->mark[i].class || kept == 0 ? compose(c->starter, c->mark[i].cp) : 0;

                if (whole) {
                        c->starter = whole;
                        continue;
                }
                last = c->mark[i].class;
                c->mark[kept++] = c->mark[i];
        }
        c->marks = kept;
}

static void flush(struct cluster *c, struct buf *out)
{
        if (c->any)
                put(c->starter, out);
        for (unsigned i = 0; i < c->marks; i++)
                put(c->mark[i].cp, out);
        c->any = false;
        c->marks = 0;
}

static void add_mark(struct cluster *c, uint32_t cp, unsigned class)
{
        unsigned i = c->marks;

        if (i == MARKS_MAX)
                return;
        for (; i > 0 && c->mark[i - 1].class > class; i--)
                c->mark[i] = c->mark[i - 1];
        c->mark[i].cp = cp;
        c->mark[i].class = class;
        c->marks++;
}

static void add_starter(struct cluster *c, uint32_t cp, struct buf *out)
{
        uint32_t whole;

        compose_marks(c);
        whole = c->any && c->marks == 0 ? compose(c->starter, cp) : 0; /* Hangul, and a few vowels of India */
        if (whole) {
                c->starter = whole;
                return;
        }
        flush(c, out);
        c->any = true;
        c->starter = cp;
}

bool unicode_nfc(struct str s, struct buf *out)
{
        struct cluster c = { 0 };

        while (s.n > 0) {
                uint32_t cp, parts[DECOMPOSED_MAX];
                size_t n;

                s = str_from(s, utf8_next(s, &cp));
                n = decompose(cp, parts);
                for (size_t i = 0; i < n; i++) {
                        unsigned class = class_of(parts[i]);

                        if (class)
                                add_mark(&c, parts[i], class);
                        else
                                add_starter(&c, parts[i], out);
                }
        }
        compose_marks(&c);
        flush(&c, out);
        return !out->failed;
}

static const struct fold_full *full_fold(uint32_t cp)
{
        size_t low = 0, high = COUNT(fold_fulls);

        while (low < high) {
                size_t mid = (low + high) / 2;

                if (cp < fold_fulls[mid].from)
                        high = mid;
                else if (cp > fold_fulls[mid].from)
                        low = mid + 1;
                else
                        return &fold_fulls[mid];
        }
        return NULL;
}

static void add_folded(uint32_t cp, struct buf *out)
{
        const struct fold_full *f = cp < 0x80 ? NULL : full_fold(cp);
        char p[4];

        if (!f)
                buf_add(out, p, utf8_put(utf8_fold(cp), p));
        for (size_t i = 0; f && i < COUNT(f->to) && f->to[i]; i++)
                buf_add(out, p, utf8_put(f->to[i], p));
}

bool unicode_caseless(struct str s, struct buf *out)
{
        struct buf folded = BUF_INIT;
        bool ok;

        while (s.n > 0) {
                uint32_t cp;

                s = str_from(s, utf8_next(s, &cp));
                add_folded(cp, &folded);
        }
        ok = !folded.failed && unicode_nfc(buf_str(&folded), out);
        buf_free(&folded);
        return ok;
}
