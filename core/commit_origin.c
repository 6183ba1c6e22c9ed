/* Where a held message came from, as key=value lines in its mark: so that it comes back as it was. */
#include "core/buf.h"
#include "core/commit.h"

static void write_pair(struct buf *b, const char *key, struct str value)
{
        if (!value.p)
                return;
        buf_printf(b, "%s=", key);
        for (size_t i = 0; i < value.n; i++)
                if (value.p[i] == '\n' || value.p[i] == '\\')
                        buf_add_str(b, value.p[i] == '\n' ? STR("\\n") : STR("\\\\"));
                else
                        buf_add_char(b, value.p[i]);
        buf_add_char(b, '\n');
}

struct str origin_write(const struct origin *o, struct arena *a)
{
        struct buf b = BUF_INIT;
        struct str out;

        write_pair(&b, "source", o->source);
        write_pair(&b, "account", o->account);
        write_pair(&b, "folder", o->folder);
        write_pair(&b, "flags", o->flags);
        write_pair(&b, "envelope_to", o->envelope_to);
        write_pair(&b, "envelope_from", o->envelope_from);
        buf_printf(&b, "time=%lld\nfetched=%lld\n", (long long)o->time, (long long)o->fetched);
        if (o->suspect)
                buf_add_str(&b, STR("suspect=1\n"));
        if (o->longer)
                buf_add_str(&b, STR("longer=1\n"));
        if (o->ambiguous)
                buf_add_str(&b, STR("ambiguous=1\n"));
        out = arena_str(a, buf_str(&b));
        buf_free(&b);
        return out;
}

static struct str unescape(struct str v, struct arena *a)
{
        char *out = arena_alloc(a, v.n + 1);
        size_t n = 0;

        for (size_t i = 0; out && i < v.n; i++) {
                bool esc = v.p[i] == '\\' && i + 1 < v.n;

                i += esc;
                out[n++] = esc && v.p[i] == 'n' ? '\n' : v.p[i];
        }
        return out ? str_make(out, n) : STR_NONE;
}

void origin_read(struct str text, struct origin *o, struct arena *a)
{
        while (text.n > 0) {
                struct str line = str_take(&text, '\n'), key = str_take(&line, '='), value = unescape(line, a);
                struct { const char *name; struct str *to; } strings[] = {
                        { "source", &o->source }, { "account", &o->account }, { "folder", &o->folder }, { "flags", &o->flags },
                        { "envelope_to", &o->envelope_to }, { "envelope_from", &o->envelope_from },
                };
                uint64_t n;

                for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
                        if (str_eq(key, str_of(strings[i].name)))
                                *strings[i].to = value;
                if (str_eq(key, STR("time")) && str_to_u64(value, INT64_MAX, &n))
                        o->time = (int64_t)n;
                if (str_eq(key, STR("fetched")) && str_to_u64(value, INT64_MAX, &n))
                        o->fetched = (int64_t)n;
                if (str_eq(key, STR("suspect")))
                        o->suspect = true;
                if (str_eq(key, STR("longer")))
                        o->longer = true;
                if (str_eq(key, STR("ambiguous")))
                        o->ambiguous = true;
        }
}
