/* Parts, and readers over their bytes. A part keeps its message's box alive, and asks it whether the message is still open. */
#include <string.h>

#include "core/digest.h"
#include "lua/class.h"
#include "lua/open.h"

struct part_box {
        struct part *part; /* good while the message's box is open */
};

struct part *face_check_part(lua_State *L, int idx, struct plan **plan)
{
        struct message_box *of = message_box_check(L, idx);
        if (plan)
                *plan = of->face.plan;
        if (class_of(L, idx)->kind == CLASS_PART)
                return ((struct part_box *)lua_touserdata(L, idx))->part;
        return message_root(of->face.plan->message);
}

void face_push_part(lua_State *L, int message_idx, struct part *p)
{
        struct part_box *b;
        message_box_push(L, message_idx);
        if (lua_getiuservalue(L, -1, UV_PARTS) == LUA_TNIL) {
                lua_pop(L, 1);
                lua_newtable(L);
                lua_pushvalue(L, -1);
                lua_setiuservalue(L, -3, UV_PARTS);
        }
        if (lua_rawgetp(L, -1, p) == LUA_TNIL) {
                lua_pop(L, 1);
                b = lua_newuserdatauv(L, sizeof *b, 2);
                b->part = p;
                lua_pushvalue(L, -3);
                lua_setiuservalue(L, -2, UV_MESSAGE);
                luaL_setmetatable(L, FACE_PART);
                lua_pushvalue(L, -1);
                lua_rawsetp(L, -3, p);
        }
        lua_replace(L, -3);
        lua_pop(L, 1);
}

/* The filter, made into a function of a part; nothing when there is none. */
static bool push_filter(lua_State *L, int idx)
{
        if (lua_isnoneornil(L, idx))
                return false;
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        if (lua_getfield(L, -1, "mail.match") != LUA_TTABLE)
                return luaL_error(L, "mail.match is not loaded");
        lua_getfield(L, -1, "compile_filter");
        lua_pushvalue(L, idx);
        lua_call(L, 1, 1);
        lua_replace(L, -3);
        lua_pop(L, 1);
        return true;
}

bool filter_unpacks(lua_State *L, int idx)
{
        bool yes = lua_istable(L, idx) && (lua_getfield(L, idx, "unpack"), lua_toboolean(L, -1));
        if (lua_istable(L, idx))
                lua_pop(L, 1);
        return yes;
}

int parts_push(lua_State *L, int message_idx, struct part *const *parts, size_t n, int filter_idx)
{
        lua_Integer used = 0;
        int filter, list;
        message_idx = lua_absindex(L, message_idx);
        filter = push_filter(L, filter_idx) ? lua_gettop(L) : 0;
        lua_newtable(L);
        list = lua_gettop(L);
        for (size_t i = 0; i < n; i++) {
                bool keep = true;
                face_push_part(L, message_idx, parts[i]);
                if (filter) {
                        lua_pushvalue(L, filter);
                        lua_pushvalue(L, -2);
                        lua_call(L, 1, 1);
                        keep = lua_toboolean(L, -1);
                        lua_pop(L, 1);
                }
                if (keep)
                        lua_rawseti(L, list, ++used);
                else
                        lua_pop(L, 1);
        }
        face_make_list(L);
        return 1;
}

/* Fields */

static struct part *self(lua_State *L)
{
        return face_check_part(L, 1, NULL);
}

static int push_maybe(lua_State *L, struct str s)
{
        face_push_str(L, s);
        return 1;
}

static int push_never_nil(lua_State *L, struct str s)
{
        lua_pushlstring(L, s.p ? s.p : "", s.p ? s.n : 0);
        return 1;
}

static int get_path(lua_State *L) { return push_never_nil(L, part_path(self(L))); }
static int get_type(lua_State *L) { return push_never_nil(L, part_type(self(L))); }
static int get_detected(lua_State *L) { return push_never_nil(L, part_detected(self(L))); }
static int get_charset(lua_State *L) { return push_maybe(L, part_charset(self(L))); }
static int get_disposition(lua_State *L) { return push_maybe(L, part_disposition(self(L))); }
static int get_name(lua_State *L) { return push_maybe(L, part_name(self(L))); }
static int get_id(lua_State *L) { return push_maybe(L, part_id(self(L))); }
static int get_text(lua_State *L) { return push_never_nil(L, part_text(self(L))); }
static int get_content(lua_State *L) { return push_never_nil(L, part_content(self(L))); }

/* A message's own box is the plan's: its other reading is a part like any other. */
int part_get_alternative(lua_State *L)
{
        struct part *p = part_alternative(self(L));
        if (p)
                face_push_part(L, 1, p);
        else
                lua_pushnil(L);
        return 1;
}

static int get_names(lua_State *L)
{
        struct str *names = NULL;
        size_t n = part_names(self(L), &names);
        lua_createtable(L, (int)n, 0);
        for (size_t i = 0; i < n; i++) {
                push_never_nil(L, names[i]);
                lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        face_make_list(L);
        return 1;
}

static int get_size(lua_State *L)
{
        lua_pushinteger(L, (lua_Integer)part_size(self(L)));
        return 1;
}

static int get_encoded_size(lua_State *L)
{
        lua_pushinteger(L, (lua_Integer)part_encoded_size(self(L)));
        return 1;
}

int part_get_sha256(lua_State *L)
{
        uint8_t hash[DIGEST_SIZE];
        char hex[65];
        struct err e;
        if (!part_sha256(self(L), hash, &e))
                return face_raise(L, &e); /* reading failed: this machine's fault, and the message is held */
        digest_hex(hash, hex);
        lua_pushstring(L, hex);
        return 1;
}

static int get_attached(lua_State *L)
{
        struct str reason;
        lua_pushboolean(L, part_attached(self(L), &reason));
        return 1;
}

static int get_reason(lua_State *L)
{
        struct str reason = STR("");
        part_attached(self(L), &reason);
        return push_never_nil(L, reason);
}

static int get_member(lua_State *L) { return push_maybe(L, part_member(self(L))); }

static int get_message(lua_State *L)
{
        self(L);
        message_box_push(L, 1);
        return 1;
}

/* The leaves below a part, in order; containers open. Depth is bounded by limits.depth, so the stack of the walk is too. */
struct walk {
        struct part **out;
        size_t n, cap;
};

static void walk_add(lua_State *L, int box, struct walk *w, struct part *p)
{
        if (w->n == w->cap) {
                size_t cap = w->cap ? w->cap * 2 : 16;
                struct part **more = lua_newuserdatauv(L, cap * sizeof *more, 0);
                if (w->n > 0)
                        memcpy(more, w->out, w->n * sizeof *more);
                lua_replace(L, box);
                w->out = more;
                w->cap = cap;
        }
        w->out[w->n++] = p;
}

static int method_parts(lua_State *L)
{
        struct walk todo = { 0 }, leaves = { 0 };
        struct part **children;
        size_t n;

        lua_settop(L, 2);
        if (filter_unpacks(L, 2)) {
                n = part_unpacked(self(L), &children);
                return parts_push(L, 1, children, n, 2);
        }
        n = part_is_container(self(L)) ? 0 : part_members(self(L), &children);
        if (n > 0)
                return parts_push(L, 1, children, n, 2);
        lua_pushnil(L);  /* 3: memory of todo */
        lua_pushnil(L);  /* 4: memory of leaves */
        n = part_children(self(L), &children);
        while (n > 0)
                walk_add(L, 3, &todo, children[--n]);
        while (todo.n > 0) {
                struct part *p = todo.out[--todo.n];
                n = part_children(p, &children);
                if (n == 0 && !part_is_container(p))
                        walk_add(L, 4, &leaves, p);
                while (n > 0)
                        walk_add(L, 3, &todo, children[--n]);
        }
        return parts_push(L, 1, leaves.out, leaves.n, 2);
}

static void check_open(lua_State *L)
{
        message_box_check(L, 1);
}

static int set_field(lua_State *L)
{
        return luaL_error(L, "part.%s can't be set (names of your own go into m.vars)", luaL_tolstring(L, 2, NULL));
}

static int to_string(lua_State *L)
{
        struct part_box *b = luaL_checkudata(L, 1, FACE_PART);
        struct message_box *of = message_box_push(L, 1);
        if (!of->face.plan) {
                lua_pushliteral(L, "part (its message is closed)");
                return 1;
        }
        lua_pushliteral(L, "part ");
        push_never_nil(L, part_path(b->part));
        lua_pushliteral(L, " (");
        push_never_nil(L, part_name(b->part).p ? part_name(b->part) : part_type(b->part));
        lua_pushliteral(L, ")");
        lua_concat(L, 5);
        return 1;
}

static const luaL_Reg fields[] = {
        /*** part.path -> string
         * Its place in the message, numbered as IMAP does: "1", "2.1". */
        { "path", get_path },
        /*** part.type -> string
         * The declared type in lower case, "application/pdf"; RFC 2045's default where none is declared. */
        { "type", get_type },
        /*** part.detected -> string
         * The type that libmagic finds in the decoded bytes; empty for a container. */
        { "detected", get_detected },
        /*** part.charset -> string or nil
         * The declared charset in lower case; us-ascii for text without one; nil for what is no text. */
        { "charset", get_charset },
        /*** part.disposition -> string or nil
         * "attachment", "inline" (RFC 2183), as declared. */
        { "disposition", get_disposition },
        /*** part.name -> string or nil
         * The declared file name, decoded (RFC 2231, RFC 2047). What the sender wrote: never a path to trust; part:save makes it safe. */
        { "name", get_name },
        /*** part.names -> list of strings
         * Every file name it was given, each once: filename*, filename, name, then what a second field of the same kind says. part.name is
         * the first; with more than one m.defects["ambiguous.name"] is true. */
        { "names", get_names },
        /*** part.alternative -> part or nil
         * The same bytes as another reader of mail may take them, where they can be taken in two ways: the last of two Content-Types or
         * encodings, an encoding in quotes or an encoded word decoded, base64 ended at its padding. nil where there is one reading. Looks
         * through base64 once to know. The page of departures (core/README.md) lists what is read how. */
        { "alternative", part_get_alternative },
        /*** part.id -> string or nil
         * The Content-ID without its angle brackets. */
        { "id", get_id },
        /*** part.size -> integer
         * Decoded bytes; decodes once to know. */
        { "size", get_size },
        /*** part.encoded_size -> integer
         * Bytes as they stand in the message. */
        { "encoded_size", get_encoded_size },
        /*** part.sha256 -> string
         * The SHA-256 of the decoded bytes, in hexadecimal. */
        { "sha256", part_get_sha256 },
        /*** part.text -> string
         * Decoded, as UTF-8 with LF, cut at limits.text (a defect says so); empty for what is no text. */
        { "text", get_text },
        /*** part.content -> string
         * The decoded bytes, cut at limits.text (a defect says so). part:reader() reads all of them in pieces. */
        { "content", get_content },
        /*** part.attached -> boolean
         * Whether a person would call it a file that someone sent. */
        { "attached", get_attached },
        /*** part.reason -> string
         * Why part.attached is what it is. Attached: "declared an attachment", "named", "not text", "photo shown by the html", "sent in a
         * wrapper", "in an archive". Not: "text", "alternative", "piece of the text", "shown by the html", "small picture of the text", "signature", "report",
         * "layout", "resource fork", "kept elsewhere", "left by a file manager", "encrypted in its archive", "empty", "container". */
        { "reason", get_reason },
        /*** part.member -> string or nil
         * Where a member lies in its archive, as it is called there ("docs/a.pdf"); part.name is the last component of it. Never a path to trust.
         * nil for a part that is none. */
        { "member", get_member },
        /*** part.encrypted -> boolean
         * Whether its content can't be had without a key: S/MIME, PGP/MIME, an archive with encrypted members (it is opened to know), and such a
         * member, which has a name, and neither content, hash nor reader; part:save of it raises. */
        { "encrypted", part_get_encrypted },
        /*** part.signature -> table or nil
         * The S/MIME signature that the part lies under, the nearest one: multipart/signed, or signed data around it; nil for what is not signed. As
         * a table: verified (true when what was signed is unchanged, every signer's certificate leads to a root that the system trusts and holds
         * now, and no digest is one that can be forged: MD5, SHA-1), reason (a sentence why not; nil), by_sender (whether the certificate is for the
         * address m.from: a good signature may be anyone's), signer (the certificate's subject), name (its common name), emails (its addresses),
         * issuer, digest ("SHA256"), signed_at (as the signer says) and expires (seconds since 1970, or nil); signers: the same for each of
         * them. Other certificates or another time: part:verify. */
        { "signature", part_get_signature },
        /*** part.message -> message
         * The message it belongs to. */
        { "message", get_message },
        { NULL, NULL },
};

static const luaL_Reg methods[] = {
        /*** part:parts(filter) -> list of parts
         * The leaves inside a container, or in a wrapper; the members of an archive (zip, tar, 7z, gzip, xz, zstd, bzip2; told by its content, so an
         * office document's are given as well), whole files and encrypted ones; empty for any other leaf. What could not be had is a defect
         * ("archive.broken", "archive.encrypted", "archive.special", "limit.opened"). filter: as for m:parts; with unpack = true archives in it are
         * opened as well. */
        { "parts", method_parts },
        /*** part:lines() -> iterator
         * The decoded lines, without their line ends; of a text part as UTF-8. A line longer than limits.text comes in pieces. */
        { "lines", part_method_lines },
        /*** part:reader() -> reader, or nil, sentence, code
         * Reads the decoded bytes in pieces: r:read(n), r:close(). */
        { "reader", part_method_reader },
        { NULL, NULL },
};

static const luaL_Reg meta[] = {
        /*** part.field = value
         * Raises: a part's fields can't be set. */
        { "__newindex", set_field },
        /*** tostring(part) -> string
         * "part 2 (invoice.pdf)", for logs. */
        { "__tostring", to_string },
        { NULL, NULL },
};

int luaopen_part(lua_State *L)
{
        static const struct class_spec spec = { CLASS_PART, FACE_PART, "part", check_open, fields, NULL, methods, meta };
        class_new(L, &spec);
        return luaopen_reader(L);
}
