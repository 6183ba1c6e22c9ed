/* m.signature, part.signature: what S/MIME says, as a table. part:verify (lverify.c) asks the same with certificates of the user's own. */
#include "core/signature.h"
#include "core/sys.h"
#include "lua/class.h"

static void set_str(lua_State *L, const char *key, struct str s)
{
        face_push_str(L, s);
        lua_setfield(L, -2, key);
}

static void set_time(lua_State *L, const char *key, int64_t t)
{
        if (t != 0)
                lua_pushinteger(L, (lua_Integer)t);
        else
                lua_pushnil(L);
        lua_setfield(L, -2, key);
}

static void push_signer(lua_State *L, const struct signer *s, struct str why)
{
        lua_createtable(L, 0, 10);
        lua_pushboolean(L, !why.p);
        lua_setfield(L, -2, "verified");
        set_str(L, "reason", why);
        set_str(L, "signer", s->subject);
        set_str(L, "name", s->name);
        set_str(L, "issuer", s->issuer);
        set_str(L, "digest", s->digest);
        set_time(L, "signed_at", s->signed_at);
        set_time(L, "expires", s->expires);
        lua_newtable(L);
        for (size_t i = 0; i < s->emails_n; i++) {
                face_push_str(L, s->emails[i]);
                lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        face_make_list(L);
        lua_setfield(L, -2, "emails");
}

static bool is_sender(struct message *m, const struct signer *s)
{
        const struct addr *a = message_addresses(m, STR("From"));

        while (a && a->addr.n == 0)
                a = a->next;
        for (size_t i = 0; a && i < s->emails_n; i++)
                if (str_eq_nocase(s->emails[i], a->addr))
                        return true;
        return false;
}

int signature_push(lua_State *L, struct part *p, struct str ca, int64_t at, struct err *e)
{
        struct signer nobody = { .digest = STR_NONE };
        struct signature s;
        bool found;

        if (!part_signature(p, ca, at, &found, &s, e))
                return 0;
        if (!found) {
                lua_pushnil(L);
                return 1;
        }
        push_signer(L, s.n > 0 ? &s.signers[0] : &nobody, s.why);
        lua_pushboolean(L, s.n > 0 && is_sender(part_message(p), &s.signers[0]));
        lua_setfield(L, -2, "by_sender");
        lua_newtable(L);
        for (size_t i = 0; i < s.n; i++) {
                push_signer(L, &s.signers[i], s.signers[i].why);
                lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        face_make_list(L);
        lua_setfield(L, -2, "signers");
        return 1;
}

int part_get_signature(lua_State *L)
{
        struct err e;

        if (!signature_push(L, face_check_part(L, 1, NULL), STR_NONE, sys_now(), &e))
                return face_raise(L, &e); /* reading failed: this machine's fault, and the message is held */
        return 1;
}

int part_get_encrypted(lua_State *L)
{
        struct part *p = face_check_part(L, 1, NULL), **children;
        bool yes = part_encrypted(p);

        if (!yes && part_is_root(p)) /* a message is as encrypted as its body */
                yes = part_children(p, &children) > 0 && part_encrypted(children[0]);
        lua_pushboolean(L, yes);
        return 1;
}
