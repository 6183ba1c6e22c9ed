/* The message: fields that are found when first read. Nothing here yields, and nothing raises because mail is broken. */
#include <string.h>

#include "core/buf.h"
#include "lua/class.h"
#include "lua/open.h"

static const char key_open; /* registry: plan -> its message's box */

/* The box */

struct message_box *message_box_push(lua_State *L, int idx)
{
        const struct class_spec *spec = class_of(L, idx);
        if (!spec)
                luaL_typeerror(L, idx, "message or part");
        else if (spec->kind == CLASS_PART)
                lua_getiuservalue(L, idx, UV_MESSAGE);
        else
                lua_pushvalue(L, idx);
        return lua_touserdata(L, -1);
}

struct message_box *message_box_check(lua_State *L, int idx)
{
        struct message_box *b = message_box_push(L, idx);
        lua_pop(L, 1);
        if (!b->face.plan)
                luaL_error(L, "the message is closed (its handler is over)");
        return b;
}

struct plan *face_check_plan(lua_State *L, int idx)
{
        return message_box_check(L, idx)->face.plan;
}

void face_push_message(lua_State *L, struct plan *p)
{
        struct message_box *b;
        if (!p->message) {
                lua_pushnil(L);
                return;
        }
        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_open);
        if (lua_rawgetp(L, -1, p) == LUA_TNIL) {
                lua_pop(L, 1);
                b = lua_newuserdatauv(L, sizeof *b, 2);
                *b = (struct message_box){ 0 };   /* closed, until everything that can fail has been done */
                luaL_setmetatable(L, FACE_MESSAGE);
                lua_pushvalue(L, -1);
                lua_rawsetp(L, -3, p);
                b->face.plan = p;
        }
        lua_remove(L, -2);
}

void face_close_message(lua_State *L, struct plan *p)
{
        struct message_box *b;
        face_forget_rule(L, p);
        lua_rawgetp(L, LUA_REGISTRYINDEX, &key_open);
        lua_rawgetp(L, -1, p);
        b = lua_touserdata(L, -1);
        if (b) {
                readers_close(b);
                b->face.plan = NULL;
                for (int uv = UV_KEPT; uv <= UV_PARTS; uv++) {
                        lua_pushnil(L);
                        lua_setiuservalue(L, -2, uv);
                }
                lua_pushnil(L);
                lua_rawsetp(L, -3, p);
        }
        lua_pop(L, 2);
}

/* Fields */

static struct message *self(lua_State *L)
{
        return face_check_plan(L, 1)->message;
}

static int push_never_nil(lua_State *L, struct str s)
{
        lua_pushlstring(L, s.p ? s.p : "", s.p ? s.n : 0);
        return 1;
}

static int push_maybe(lua_State *L, struct str s)
{
        face_push_str(L, s);
        return 1;
}

/* The first address that says one; an entry with only a name or a group's shell says none. */
static const struct addr *first_address(struct message *m, const char *field)
{
        const struct addr *a = message_addresses(m, str_of(field));
        while (a && a->addr.n == 0)
                a = a->next;
        return a;
}

static int push_addresses(lua_State *L, const char *field)
{
        lua_Integer n = 0;
        lua_newtable(L);
        for (const struct addr *a = message_addresses(self(L), str_of(field)); a; a = a->next) {
                if (a->addr.n == 0)
                        continue;
                face_push_str(L, a->addr);
                lua_rawseti(L, -2, ++n);
        }
        face_make_list(L);
        return 1;
}

static int push_strings(lua_State *L, const struct str *s, size_t n)
{
        lua_createtable(L, n < 1000 ? (int)n : 1000, 0);
        for (size_t i = 0; i < n; i++) {
                push_never_nil(L, s[i]);
                lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        face_make_list(L);
        return 1;
}

static int get_subject(lua_State *L) { return push_never_nil(L, message_subject(self(L))); }

static int get_from(lua_State *L)
{
        const struct addr *a = first_address(self(L), "From");
        return push_never_nil(L, a ? a->addr : STR_NONE);
}

static int get_from_name(lua_State *L)
{
        const struct addr *a = first_address(self(L), "From");
        if (!a)
                a = message_addresses(self(L), STR("From"));
        return push_never_nil(L, a ? a->name : STR_NONE);
}

static int get_sender(lua_State *L)
{
        const struct addr *a = first_address(self(L), "Sender");
        return push_maybe(L, a ? a->addr : STR_NONE);
}

static int get_reply_to(lua_State *L)
{
        const struct addr *a = first_address(self(L), "Reply-To");
        return a ? push_never_nil(L, a->addr) : get_from(L);
}

static int get_to(lua_State *L) { return push_addresses(L, "To"); }
static int get_cc(lua_State *L) { return push_addresses(L, "Cc"); }
static int get_bcc(lua_State *L) { return push_addresses(L, "Bcc"); }

static int push_integer(lua_State *L, int64_t n)
{
        lua_pushinteger(L, (lua_Integer)n);
        return 1;
}

static int get_date(lua_State *L) { return push_integer(L, message_date(self(L))); }
static int get_received(lua_State *L) { return push_integer(L, message_received(self(L))); }
static int get_size(lua_State *L) { return push_integer(L, (int64_t)message_size(self(L))); }
/* An archive's is the mark to resume at: a place in a file, no name. */
static int get_uid(lua_State *L)
{
        const struct origin *o = message_origin(self(L));

        return push_maybe(L, o->account.n ? o->uid : STR_NONE);
}
static int get_account(lua_State *L) { return push_maybe(L, message_origin(self(L))->account); }
static int get_source(lua_State *L) { return push_never_nil(L, message_origin(self(L))->source); }
static int get_folder(lua_State *L) { return push_never_nil(L, message_origin(self(L))->folder); }
static int get_flags(lua_State *L) { return push_never_nil(L, message_origin(self(L))->flags); }
static int get_envelope_to(lua_State *L) { return push_maybe(L, message_envelope_to(self(L))); }
static int get_message_id(lua_State *L) { return push_maybe(L, message_id(self(L))); }
static int get_list_id(lua_State *L) { return push_maybe(L, message_list_id(self(L))); }
static int get_text(lua_State *L) { return push_never_nil(L, message_text(self(L))); }
static int get_html(lua_State *L) { return push_maybe(L, message_html(self(L))); }

static int get_in_reply_to(lua_State *L)
{
        struct str *ids = NULL;
        size_t n = message_ids(self(L), STR("In-Reply-To"), &ids);
        return push_maybe(L, n > 0 ? ids[0] : STR_NONE);
}

static int get_references(lua_State *L)
{
        struct str *ids = NULL;
        size_t n = message_ids(self(L), STR("References"), &ids);
        return push_strings(L, ids, n);
}

static int get_vars(lua_State *L)
{
        self(L);
        lua_newtable(L);
        return 1;
}

static int get_raw(lua_State *L)
{
        struct message *m = self(L);
        struct range r = message_range(m);
        uint64_t limit = message_limits(m)->text;
        size_t n = (size_t)(r.n < limit ? r.n : limit), used = 0;
        struct err e;
        luaL_Buffer b;
        char *p;

        if (n < r.n)
                message_add_defect(m, "limit.text");
        p = luaL_buffinitsize(L, &b, n);
        while (used < n) {
                ssize_t got = range_read(r, used, p + used, n - used, &e);
                if (got < 0)
                        return face_raise(L, &e); /* the disk's fault, not the mail's: the message is held */
                if (got == 0)
                        break;
                used += (size_t)got;
        }
        luaL_pushresultsize(&b, used);
        return 1;
}

/* What is wrong with a header shows when it is decoded; who asks for defects asks about the fields that every script may read. */
static void read_header(struct message *m)
{
        static const char *const names[] = { "From", "Sender", "Reply-To", "To", "Cc", "Bcc" };
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                message_addresses(m, str_of(names[i]));
        message_subject(m);
        message_date(m);
        message_id(m);
        message_received_count(m);
}

/* One table for the life of the box; what was found since it was last read is added. */
static int get_defects(lua_State *L)
{
        const char *const *names;
        size_t n;
        struct message *m = self(L);

        class_push_kept(L, 1);
        if (lua_rawgetp(L, -1, &key_open) == LUA_TNIL) {
                lua_pop(L, 1);
                lua_newtable(L);
                list_make_named(L);
                lua_pushvalue(L, -1);
                lua_rawsetp(L, -3, &key_open);
                read_header(m);
        }
        names = message_defects(m, &n);
        for (size_t i = lua_rawlen(L, -1); i < n; i++) {
                lua_pushboolean(L, 1);
                lua_setfield(L, -2, names[i]); /* no __newindex there */
                lua_pushstring(L, names[i]);
                lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        return 1;
}

/* Methods */

static struct str field_name(lua_State *L, int idx)
{
        struct str s = face_check_str(L, idx);
        luaL_argcheck(L, s.n > 0 && memchr(s.p, ':', s.n) == NULL, idx, "a header field's name (without the colon) is expected");
        return s;
}

static int method_header(lua_State *L)
{
        struct str value = message_field(self(L), field_name(L, 2));
        if (!value.p) {
                lua_settop(L, 3);
                return 1;
        }
        return push_maybe(L, value);
}

static int method_headers(lua_State *L)
{
        struct str *values = NULL;
        size_t n = message_fields(self(L), field_name(L, 2), &values);
        return push_strings(L, values, n);
}

static void set_str(lua_State *L, const char *key, struct str s)
{
        push_never_nil(L, s);
        lua_setfield(L, -2, key);
}

static void push_record(lua_State *L, const struct addr *a)
{
        lua_createtable(L, 0, 8);
        set_str(L, "addr", a->addr);
        set_str(L, "written", a->written);
        set_str(L, "name", a->name);
        set_str(L, "user", addr_user_of(a->addr));
        set_str(L, "detail", addr_detail_of(a->addr));
        set_str(L, "domain", a->domain);
        face_push_str(L, a->group);
        lua_setfield(L, -2, "group");
        lua_pushboolean(L, a->valid);
        lua_setfield(L, -2, "valid");
}

/* "reply_to" is the field Reply-To, so that the names of m's own fields work here. */
static struct str header_name(lua_State *L, int idx)
{
        field_name(L, idx);
        luaL_gsub(L, lua_tostring(L, idx), "_", "-");
        lua_replace(L, idx);
        return face_check_str(L, idx);
}

static int method_addresses(lua_State *L)
{
        lua_Integer n = 0;
        struct message *m = self(L);
        const struct addr *a = message_addresses(m, header_name(L, 2));
        lua_newtable(L);
        for (; a; a = a->next) {
                push_record(L, a);
                lua_rawseti(L, -2, ++n);
        }
        face_make_list(L);
        return 1;
}

static int method_parts(lua_State *L)
{
        struct part **parts = NULL;
        size_t n = message_leaves(self(L), &parts);
        if (filter_unpacks(L, 2))
                return luaL_error(L, "m:parts lists what RFC 2045 sees; unpack is for m:attachments and part:parts");
        return parts_push(L, 1, parts, n, 2);
}

static int method_attachments(lua_State *L)
{
        struct part **parts = NULL;
        size_t n = filter_unpacks(L, 2) ? message_unpacked(self(L), &parts) : message_attachments(self(L), &parts);
        return parts_push(L, 1, parts, n, 2);
}

static int method_matches(lua_State *L)
{
        self(L);
        luaL_checkany(L, 2);
        lua_settop(L, 2);
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        if (lua_getfield(L, -1, "mail.match") != LUA_TTABLE)
                return luaL_error(L, "mail.match is not loaded");
        lua_getfield(L, -1, "compile");
        lua_pushvalue(L, 2);
        lua_call(L, 1, 1);
        lua_pushvalue(L, 1);
        lua_call(L, 1, 1);
        lua_pushboolean(L, lua_toboolean(L, -1));
        return 1;
}

/* The class */

static void check_open(lua_State *L)
{
        message_box_check(L, 1);
}

static int set_field(lua_State *L)
{
        check_open(L);
        if (lua_type(L, 2) != LUA_TSTRING || strcmp(lua_tostring(L, 2), "vars") != 0)
                return luaL_error(L, "m.%s can't be set (names of your own go into m.vars)", luaL_tolstring(L, 2, NULL));
        if (lua_type(L, 3) != LUA_TTABLE)
                return luaL_error(L, "m.vars is a table, not a %s (one name: m.vars.number = …)", luaL_typename(L, 3));
        class_push_kept(L, 1);
        lua_insert(L, 2);
        lua_rawset(L, 2);
        return 0;
}

static int to_string(lua_State *L)
{
        struct message_box *b = luaL_checkudata(L, 1, FACE_MESSAGE);
        const struct origin *o;
        if (!b->face.plan) {
                lua_pushliteral(L, "message (closed)");
                return 1;
        }
        o = message_origin(b->face.plan->message);
        lua_pushfstring(L, "message %I of ", (LUAI_UACINT)o->number);
        push_never_nil(L, o->source);
        lua_concat(L, 2);
        return 1;
}

static const luaL_Reg fields[] = {
        /*** m.subject -> string
         * The Subject, decoded (RFC 5322 3.6.5, RFC 2047); empty when absent. */
        { "subject", get_subject },
        /*** m.from -> address
         * The first address of From, its domain in lower case; empty when there is none. A string that also answers .user .detail .domain. */
        { "from", get_from },
        /*** m.from_name -> string
         * The display name that stands with m.from, decoded; empty when there is none. */
        { "from_name", get_from_name },
        /*** m.sender -> address or nil
         * The address of Sender (RFC 5322 3.6.2); nil when there is none. */
        { "sender", get_sender },
        /*** m.reply_to -> address
         * Where an answer goes: the first address of Reply-To, m.from when there is none. */
        { "reply_to", get_reply_to },
        /*** m.to -> list of addresses
         * The addresses of all To fields; empty when there are none. Display names: m:addresses "to". */
        { "to", get_to },
        /*** m.cc -> list of addresses
         * The addresses of Cc. */
        { "cc", get_cc },
        /*** m.bcc -> list of addresses
         * The addresses of Bcc (rarely left in received mail). */
        { "bcc", get_bcc },
        /*** m.date -> integer
         * Seconds since 1970 UTC. From Date, else Received, else the source's time, else the time it was fetched; m.defects says which.
         * A year outside 0 to 9999 counts as missing. */
        { "date", get_date },
        /*** m.received -> integer
         * Seconds since 1970 UTC: the topmost Received, else the source's time, else the time it was fetched. */
        { "received", get_received },
        /*** m.size -> integer
         * Bytes of the whole message as it is kept (lines end in LF). */
        { "size", get_size },
        /*** m.uid -> string or nil
         * The POP3 server's unique id; nil from an archive. */
        { "uid", get_uid },
        /*** m.account -> string or nil
         * The name of the account it came from; nil from an archive. */
        { "account", get_account },
        /*** m.source -> string
         * Where it came from, as a person names it: the account's name, or the path of the archive or of the file in it ("export.zip: 2024/inbox.mbox"). */
        { "source", get_source },
        /*** m.folder -> string
         * The Maildir folder below the source ("Archive/2024"); empty for the inbox or where there is none. */
        { "folder", get_folder },
        /*** m.flags -> string
         * Maildir letters, sorted: D draft, F flagged, P passed, R replied, S seen, T trashed. Empty for none. */
        { "flags", get_flags },
        /*** m.envelope_to -> address or nil
         * Whom the envelope named, as the source or Delivered-To, X-Original-To, Envelope-To tell; nil when nothing does. */
        { "envelope_to", get_envelope_to },
        /*** m.message_id -> string or nil
         * The Message-ID without its angle brackets. */
        { "message_id", get_message_id },
        /*** m.in_reply_to -> string or nil
         * The first id of In-Reply-To, without angle brackets. */
        { "in_reply_to", get_in_reply_to },
        /*** m.references -> list of strings
         * The ids of References, oldest first, without angle brackets. */
        { "references", get_references },
        /*** m.list_id -> string or nil
         * What stands in the angle brackets of List-Id, in lower case (RFC 2919). */
        { "list_id", get_list_id },
        /*** m.text -> string
         * The text to read: the best text part as UTF-8, text/plain preferred to HTML but where it only follows it (a list's footer),
         * HTML made readable. Empty when there is none; cut at limits.text. */
        { "text", get_text },
        /*** m.html -> string or nil
         * The best text/html part as UTF-8, as it is: not cleaned. */
        { "html", get_html },
        /*** m.alternative -> part or nil
         * The whole message as another reader may take it, where it can be read in two ways: everything doubtful in it taken the other way
         * at once (the other of two boundaries, too); for part in m.alternative:parts() has its leaves. nil where there is one reading. */
        { "alternative", part_get_alternative },
        /*** m.vars -> table
         * Yours: what is put there can be named in templates as {vars.name}. */
        { "vars", get_vars },
        /*** m.raw -> string
         * The bytes of the whole message, cut at limits.text (a defect says so). m:reader() reads all of it in pieces. */
        { "raw", get_raw },
        /*** m.sha256 -> string
         * The SHA-256 of the whole message, in hexadecimal. */
        { "sha256", part_get_sha256 },
        /*** m.signature -> table or nil
         * The S/MIME signature of the whole body, as part.signature; nil when it is not signed, or only in parts (then those say so). */
        { "signature", part_get_signature },
        /*** m.encrypted -> boolean
         * Whether the body is encrypted, by S/MIME or PGP/MIME. */
        { "encrypted", part_get_encrypted },
        { NULL, NULL },
};

static const luaL_Reg live[] = {
        /*** m.defects -> list of strings
         * What was wrong with the message, as names ("ambiguous.boundary") in the order found; each is also a key: m.defects["ambiguous.boundary"]
         * is true. Grows as more of the message is read: what is wrong with a part's body shows when the body is decoded. */
        { "defects", get_defects },
        { NULL, NULL },
};

static const luaL_Reg methods[] = {
        /*** m:header(name, default) -> string or default
         * The first field of that name, decoded, on one line. Absent: default, or nil. */
        { "header", method_header },
        /*** m:headers(name) -> list of strings
         * All fields of that name, decoded, in order. */
        { "headers", method_headers },
        /*** m:addresses(field) -> list of records
         * The addresses of a header field ("to", "reply_to", "Resent-Cc"): records with addr, name, user, detail, domain (empty where there is
         * none), written (addr with its domain's letters as the sender wrote them), group (the group's name or nil) and valid (false: not
         * readable as an address, addr holds what is there). */
        { "addresses", method_addresses },
        /*** m:parts(filter) -> list of parts
         * The leaves of the message in order, as RFC 2045 sees them, into message/rfc822. filter: an attachment test; none: all. */
        { "parts", method_parts },
        /*** m:attachments(filter) -> list of parts
         * The parts that a person would call files that someone sent; part.reason says why. filter: a glob for the name ("*.pdf"), with
         * a slash for the type ("image/" followed by a star), an attachment test, a function; none: all. Wrappers are opened, and what
         * is in them counts: message/rfc822 also when encoded, TNEF (winmail.dat), S/MIME signed data, files uuencoded in text/plain.
         * An archive is one file; with unpack = true in the table its members stand in its place, also those of archives in it. One that can't be
         * read whole (damaged, encrypted, beyond mail.limits) stands there before the members that could be read; a defect says why. */
        { "attachments", method_attachments },
        /*** m:matches(test) -> boolean
         * Whether the message passes a test (a table, a function, mail.any, mail.none). Raises when the test itself is wrong. */
        { "matches", method_matches },
        /*** m:lines() -> iterator
         * The lines of the whole message, without their line ends. */
        { "lines", part_method_lines },
        /*** m:reader() -> reader, or nil, sentence, code
         * Reads the bytes of the whole message in pieces: r:read(n), r:close(). */
        { "reader", part_method_reader },
        { NULL, NULL },
};

static const luaL_Reg meta[] = {
        /*** m.vars = table
         * Only vars can be set; anything else raises. */
        { "__newindex", set_field },
        /*** tostring(m) -> string
         * "message 7 of work", for logs. */
        { "__tostring", to_string },
        { NULL, NULL },
};

int luaopen_message(lua_State *L)
{
        static const struct class_spec spec = { CLASS_MESSAGE, FACE_MESSAGE, "message", check_open, fields, live, methods, meta };
        class_new(L, &spec);
        lua_newtable(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &key_open);
        return 0;
}
