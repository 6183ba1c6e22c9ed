/* The fields that templates name, over a message and, for a part's save, its part. */
#include <inttypes.h>

#include "core/addr.h"
#include "core/filename.h"
#include "core/glob.h"
#include "lua/state.h"

struct values {
        lua_State *L;
        struct plan *plan;
        struct message *m;   /* NULL in on_finish */
        struct part *part;   /* NULL: the whole message */
        bool fallback;       /* {name|…} stands in the text */
};
typedef struct str value_of(const struct values *v, struct arena *a);

static struct str first_of(const struct values *v, const char *field)
{
        const struct addr *a = message_addresses(v->m, str_of(field));

        while (a && a->addr.n == 0)
                a = a->next;
        return a ? a->addr : STR_NONE;
}

static struct str get_subject(const struct values *v, struct arena *a) { return message_subject(v->m); }
static struct str get_from(const struct values *v, struct arena *a) { return first_of(v, "From"); }
static struct str get_from_user(const struct values *v, struct arena *a) { return addr_user_of(first_of(v, "From")); }
static struct str get_from_detail(const struct values *v, struct arena *a) { return addr_detail_of(first_of(v, "From")); }
static struct str get_from_domain(const struct values *v, struct arena *a) { return addr_domain_of(first_of(v, "From")); }
static struct str get_sender(const struct values *v, struct arena *a) { return first_of(v, "Sender"); }
static struct str get_sender_domain(const struct values *v, struct arena *a) { return addr_domain_of(first_of(v, "Sender")); }
static struct str get_sender_user(const struct values *v, struct arena *a) { return addr_user_of(first_of(v, "Sender")); }
static struct str get_sender_detail(const struct values *v, struct arena *a) { return addr_detail_of(first_of(v, "Sender")); }
static struct str get_to(const struct values *v, struct arena *a) { return first_of(v, "To"); }
static struct str get_to_user(const struct values *v, struct arena *a) { return addr_user_of(first_of(v, "To")); }
static struct str get_to_detail(const struct values *v, struct arena *a) { return addr_detail_of(first_of(v, "To")); }
static struct str get_to_domain(const struct values *v, struct arena *a) { return addr_domain_of(first_of(v, "To")); }
static struct str get_cc(const struct values *v, struct arena *a) { return first_of(v, "Cc"); }
static struct str get_cc_user(const struct values *v, struct arena *a) { return addr_user_of(first_of(v, "Cc")); }
static struct str get_cc_detail(const struct values *v, struct arena *a) { return addr_detail_of(first_of(v, "Cc")); }
static struct str get_cc_domain(const struct values *v, struct arena *a) { return addr_domain_of(first_of(v, "Cc")); }
static struct str get_bcc(const struct values *v, struct arena *a) { return first_of(v, "Bcc"); }
static struct str get_envelope_to(const struct values *v, struct arena *a) { return message_envelope_to(v->m); }
static struct str get_envelope_user(const struct values *v, struct arena *a) { return addr_user_of(message_envelope_to(v->m)); }
static struct str get_envelope_detail(const struct values *v, struct arena *a) { return addr_detail_of(message_envelope_to(v->m)); }
static struct str get_envelope_domain(const struct values *v, struct arena *a) { return addr_domain_of(message_envelope_to(v->m)); }
static struct str get_message_id(const struct values *v, struct arena *a) { return message_id(v->m); }
static struct str get_list_id(const struct values *v, struct arena *a) { return message_list_id(v->m); }
static struct str get_uid(const struct values *v, struct arena *a) { return message_origin(v->m)->account.n ? message_origin(v->m)->uid : STR_NONE; }
static struct str get_account(const struct values *v, struct arena *a) { return message_origin(v->m)->account; }
static struct str get_source(const struct values *v, struct arena *a) { return message_origin(v->m)->source; }
static struct str get_folder(const struct values *v, struct arena *a) { return message_origin(v->m)->folder; }
static struct str get_flags(const struct values *v, struct arena *a) { return message_origin(v->m)->flags; }

static struct str get_from_name(const struct values *v, struct arena *a)
{
        const struct addr *list = message_addresses(v->m, STR("From"));

        return list ? list->name : STR_NONE;
}

static struct str get_reply_to(const struct values *v, struct arena *a)
{
        struct str s = first_of(v, "Reply-To");

        return s.n ? s : get_from(v, a);
}

static struct str get_reply_user(const struct values *v, struct arena *a) { return addr_user_of(get_reply_to(v, a)); }
static struct str get_reply_detail(const struct values *v, struct arena *a) { return addr_detail_of(get_reply_to(v, a)); }
static struct str get_reply_domain(const struct values *v, struct arena *a) { return addr_domain_of(get_reply_to(v, a)); }

static struct str number(uint64_t n, struct arena *a) { return arena_printf(a, "%" PRIu64, n); }

static struct str hex(const uint8_t *hash, struct arena *a)
{
        char text[65];

        digest_hex(hash, text);
        return arena_str(a, str_make(text, 64));
}

static struct part *part_of(const struct values *v) { return v->part ? v->part : message_root(v->m); }

static struct str get_size(const struct values *v, struct arena *a)
{
        return number(v->part ? part_size(v->part) : message_size(v->m), a);
}

static struct str get_sha256(const struct values *v, struct arena *a)
{
        uint8_t hash[DIGEST_SIZE];
        struct err e;

        return (v->part ? part_sha256(v->part, hash, &e) : message_hash(v->m, hash, &e)) ? hex(hash, a) : STR_NONE;
}

static struct str get_index(const struct values *v, struct arena *a) { return number(v->part ? part_index(v->part) : message_origin(v->m)->number, a); }
static struct str get_encoded_size(const struct values *v, struct arena *a) { return number(part_encoded_size(part_of(v)), a); }

static struct str get_in_reply_to(const struct values *v, struct arena *a) 
{
        struct str *ids = NULL;

        return message_ids(v->m, STR("In-Reply-To"), &ids) ? ids[0] : STR_NONE;
}

static struct str get_reason(const struct values *v, struct arena *a) 
{
        struct str reason = STR_NONE;

        part_attached(part_of(v), &reason);
        return reason;
}

static struct str get_path(const struct values *v, struct arena *a) { return part_path(part_of(v)); }
static struct str get_type(const struct values *v, struct arena *a) { return part_type(part_of(v)); }
static struct str get_detected(const struct values *v, struct arena *a) { return part_detected(part_of(v)); }
static struct str get_charset(const struct values *v, struct arena *a) { return part_charset(part_of(v)); }
static struct str get_disposition(const struct values *v, struct arena *a) { return part_disposition(part_of(v)); }
static struct str get_id(const struct values *v, struct arena *a) { return v->part ? part_id(v->part) : message_id(v->m); }

static struct str own_name(const struct values *v, struct arena *a)
{
        struct str name = v->part ? part_name(v->part) : STR_NONE;

        return name.n ? filename_clean(name, NULL, a) : STR_NONE;
}

static struct str get_stem(const struct values *v, struct arena *a)
{
        struct str stem = STR_NONE, ext;

        filename_split(own_name(v, a), &stem, &ext);
        return stem;
}

static struct str get_ext(const struct values *v, struct arena *a)
{
        struct str stem, ext = STR_NONE;

        filename_split(own_name(v, a), &stem, &ext);
        return ext;
}

static const struct template_field {
        const char *name;
        value_of *get;
} fields[] = {
        { "account", get_account }, { "bcc", get_bcc }, { "cc", get_cc }, { "cc.detail", get_cc_detail }, { "cc.domain", get_cc_domain },
        { "cc.user", get_cc_user }, { "encoded_size", get_encoded_size }, { "in_reply_to", get_in_reply_to }, { "reason", get_reason },
        { "reply_to.detail", get_reply_detail }, { "reply_to.domain", get_reply_domain }, { "reply_to.user", get_reply_user }, { "sender.detail", get_sender_detail },
        { "sender.user", get_sender_user }, { "charset", get_charset }, { "detected", get_detected },
        { "disposition", get_disposition }, { "envelope_to", get_envelope_to }, { "envelope_to.detail", get_envelope_detail },
        { "envelope_to.domain", get_envelope_domain }, { "envelope_to.user", get_envelope_user }, { "ext", get_ext },
        { "flags", get_flags }, { "folder", get_folder }, { "from", get_from }, { "from.detail", get_from_detail },
        { "from.domain", get_from_domain }, { "from.user", get_from_user }, { "from_name", get_from_name }, { "id", get_id },
        { "index", get_index }, { "list_id", get_list_id }, { "message_id", get_message_id }, { "path", get_path },
        { "reply_to", get_reply_to }, { "sender", get_sender }, { "sender.domain", get_sender_domain }, { "sha256", get_sha256 },
        { "size", get_size }, { "source", get_source }, { "stem", get_stem }, { "subject", get_subject }, { "to", get_to },
        { "to.detail", get_to_detail }, { "to.domain", get_to_domain }, { "to.user", get_to_user }, { "type", get_type },
        { "uid", get_uid },
};
/* With a meaning of their own; for "did you mean". */
static const char *const special[] = { "date", "received", "name", "detected.ext", "vars" };
enum { FIELDS = sizeof fields / sizeof *fields, SPECIALS = sizeof special / sizeof *special };

/* The extension that people expect of what libmagic finds most. */
static struct str ext_of_type(struct str type)
{
        static const char *const known[][2] = {
                { "application/pdf", "pdf" }, { "application/zip", "zip" }, { "application/gzip", "gz" }, { "application/json", "json" },
                { "application/msword", "doc" }, { "application/vnd.ms-excel", "xls" }, { "application/vnd.ms-powerpoint", "ppt" },
                { "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx" },
                { "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx" },
                { "application/vnd.openxmlformats-officedocument.presentationml.presentation", "pptx" },
                { "application/vnd.oasis.opendocument.text", "odt" }, { "application/vnd.oasis.opendocument.spreadsheet", "ods" },
                { "application/rtf", "rtf" }, { "text/rtf", "rtf" }, { "application/xml", "xml" }, { "text/xml", "xml" },
                { "application/x-7z-compressed", "7z" }, { "application/x-rar", "rar" }, { "application/x-tar", "tar" },
                { "application/x-xz", "xz" }, { "application/zstd", "zst" }, { "application/x-bzip2", "bz2" },
                { "application/postscript", "ps" }, { "application/x-dosexec", "exe" }, { "application/vnd.microsoft.portable-executable", "exe" },
                { "image/jpeg", "jpg" }, { "image/png", "png" }, { "image/gif", "gif" }, { "image/webp", "webp" }, { "image/tiff", "tif" },
                { "image/bmp", "bmp" }, { "image/x-ms-bmp", "bmp" }, { "image/svg+xml", "svg" }, { "image/heic", "heic" },
                { "audio/mpeg", "mp3" }, { "audio/x-wav", "wav" }, { "audio/ogg", "ogg" }, { "video/mp4", "mp4" },
                { "video/quicktime", "mov" }, { "video/x-msvideo", "avi" }, { "message/rfc822", "eml" }, { "text/calendar", "ics" },
                { "text/csv", "csv" }, { "text/html", "html" }, { "text/plain", "txt" }, { "text/vcard", "vcf" },
        };

        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                if (str_eq(type, str_of(known[i][0])))
                        return str_of(known[i][1]);
        return STR_NONE;
}

static bool unknown(struct str field, struct err *e)
{
        const char *names[FIELDS + SPECIALS], *near;

        for (size_t i = 0; i < FIELDS; i++)
                names[i] = fields[i].name;
        for (size_t i = 0; i < SPECIALS; i++)
                names[FIELDS + i] = special[i];
        near = glob_nearest(field, names, FIELDS + SPECIALS);
        if (near)
                return err_set(e, ERR_USAGE, "unknown template field '%.*s' (did you mean '%s'?)", STR_FMT(field), near);
        return err_set(e, ERR_USAGE, "unknown template field '%.*s'", STR_FMT(field));
}

static bool add_date(const struct values *v, bool received, struct str format, struct str *out, struct arena *a, struct err *e)
{
        int64_t when = !v->m ? engine_of(v->L)->options.now : received ? message_received(v->m) : message_date(v->m);

        *out = template_date(when, format.n ? format : STR("%Y-%m-%d"), engine_of(v->L)->timezone, a, e);
        return out->p != NULL;
}

struct wanted {
        const struct values *v;
        struct str name, *out;
        struct arena *arena;
};

/* m.vars[name], as text. Protected: the core's frames stand between here and who called. */
static int get_var(lua_State *L)
{
        struct wanted *w = lua_touserdata(L, 1);
        struct str s;

        face_push_message(L, w->v->plan);
        lua_getfield(L, -1, "vars");
        face_push_str(L, w->name);
        if (lua_gettable(L, -2) == LUA_TNIL)
                return 0;
        if (lua_type(L, -1) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER && lua_type(L, -1) != LUA_TBOOLEAN)
                return luaL_error(L, "a %s can't name a file (tostring(…) or a field of it can)", luaL_typename(L, -1));
        s.p = luaL_tolstring(L, -1, &s.n);
        *w->out = state_keep(L, w->arena, s);
        return 0;
}

static bool add_var(const struct values *v, struct str name, struct str *out, struct arena *a, struct err *e)
{
        struct wanted w = { v, name, out, a };
        int top = lua_gettop(v->L);

        if (!v->m)
                return true;
        if (!lua_checkstack(v->L, 4))
                return err_nomem(e);
        lua_pushcfunction(v->L, get_var);
        lua_pushlightuserdata(v->L, &w);
        if (lua_pcall(v->L, 1, 0, 0) != LUA_OK) {
                const char *text = lua_tostring(v->L, -1);
                err_set(e, ERR_SCRIPT, "m.vars.%.*s: %s", STR_FMT(name), text ? text : "?");
                lua_settop(v->L, top);
                return false;
        }
        return true;
}

static bool value(void *ctx, struct str field, struct str format, struct str *out, struct arena *a, struct err *e)
{
        const struct values *v = ctx;

        *out = STR_NONE;
        if (str_eq(field, STR("date")) || str_eq(field, STR("received")))
                return add_date(v, str_eq(field, STR("received")), format, out, a, e);
        if (format.n)
                return err_set(e, ERR_USAGE, "{%.*s:%.*s}: only {date} and {received} take a format", STR_FMT(field), STR_FMT(format));
        if (str_starts(field, STR("vars.")))
                return add_var(v, str_from(field, 5), out, a, e);
        if (str_eq(field, STR("detected.ext"))) {
                *out = v->m ? ext_of_type(part_detected(part_of(v))) : STR_NONE;
                return true;
        }
        if (str_eq(field, STR("name"))) {
                *out = v->m ? own_name(v, a) : STR_NONE;
                return true;
        }
        for (size_t i = 0; i < FIELDS; i++)
                if (str_eq(field, str_of(fields[i].name))) {
                        *out = v->m ? fields[i].get(v, a) : STR_NONE;
                        return true;
                }
        return unknown(field, e);
}

/* {name} without a name and without a fallback is "attachment-3". */
static bool value_or_number(void *ctx, struct str field, struct str format, struct str *out, struct arena *a, struct err *e)
{
        const struct values *v = ctx;

        if (!value(ctx, field, format, out, a, e))
                return false;
        if (out->n == 0 && str_eq(field, STR("name")) && v->part && !v->fallback)
                *out = arena_printf(a, "attachment-%u", part_index(v->part));
        return true;
}

struct str template_expand(lua_State *L, struct plan *p, struct part *part, struct str text)
{
        struct values v = { L, p, p->message, part && p->message && !part_is_root(part) ? part : NULL,
                            str_find_str(text, STR("{name|")) < text.n };
        struct template_source src = { value_or_number, &v };
        struct str out;
        struct err e;

        out = template_path(text, &src, p->arena, &e);
        if (!out.p)
                face_raise(L, &e);
        return out;
}

bool engine_check_template(struct engine *en, struct str text, struct err *e)
{
        struct values v = { .L = en->L };
        struct template_source src = { value, &v };

        return template_check(text, &src, e);
}
