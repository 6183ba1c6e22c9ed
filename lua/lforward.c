/* New mail: forward, redirect, reply, send. Everything is checked when it is asked for; composing and sending come later. */
#include <strings.h>

#include "core/addr.h"
#include "core/sys.h"
#include "lua/state.h"

enum { RECIPIENTS_MAX = 100, FILES_MAX = 100, QUOTE_MAX = 64 << 10, ID_MAX = 900 /* of the 998 bytes of a line */ };

/* A mail being made: nothing of it stands in the plan before all is checked. */
struct mail {
        lua_State *L;
        struct plan *plan;
        int options;                 /* index of the options' table; may be none */
        const char *verb;
        struct compose *c;
        struct str sender;
        const struct str *recipients;
        size_t recipient_n;
        bool at_most_once;
};

/* Addresses */

/* One address in a form that reads back as itself: the name in quotes. */
static struct str written(lua_State *L, const struct addr *a, struct arena *arena)
{
        luaL_Buffer b;
        struct str s;

        if (a->name.n == 0)
                return a->addr;
        luaL_buffinit(L, &b);
        luaL_addchar(&b, '"');
        for (size_t i = 0; i < a->name.n; i++) {
                if (a->name.p[i] == '"' || a->name.p[i] == '\\')
                        luaL_addchar(&b, '\\');
                luaL_addchar(&b, (unsigned char)a->name.p[i] < ' ' ? ' ' : a->name.p[i]);
        }
        luaL_addstring(&b, "\" <");
        luaL_addlstring(&b, a->addr.p, a->addr.n);
        luaL_addchar(&b, '>');
        luaL_pushresult(&b);
        s.p = lua_tolstring(L, -1, &s.n);
        s = state_keep(L, arena, s);
        lua_pop(L, 1);
        return s;
}

static const struct addr *parse(lua_State *L, const char *what, struct str text, struct arena *arena)
{
        unsigned defects = 0;
        struct err e;
        const struct addr *list;

        options_plain(L, what, text);
        list = addr_parse(text, &limits_default, &defects, arena);
        if (!list)
                luaL_error(L, "%s: there is no address in '%s'", what, text.p);
        for (const struct addr *a = list; a; a = a->next)
                if (!a->valid || !addr_check(a->addr, &e))
                        luaL_error(L, "%s: '%s' is no address that mail can be sent to%s%s", what, text.p, a->valid ? ": " : "", a->valid ? e.text : "");
        return list;
}

/* The addresses in a string or in each string of a list; bare ones are added to the envelope. */
static const struct str *recipients(struct mail *m, int idx, const char *what, struct str *envelope, size_t *n)
{
        lua_State *L = m->L;
        struct arena *arena = m->plan->arena;
        size_t texts = 0;
        const struct str *list = options_list(L, idx, what, RECIPIENTS_MAX, arena, &texts);
        struct str *out = state_alloc(L, arena, RECIPIENTS_MAX * sizeof *out);

        *n = 0;
        for (size_t i = 0; i < texts; i++)
                for (const struct addr *a = parse(L, what, list[i], arena); a; a = a->next) {
                        size_t k = 0;
                        if (m->recipient_n == RECIPIENTS_MAX || *n == RECIPIENTS_MAX)
                                luaL_error(L, "%s: more than %d recipients", what, RECIPIENTS_MAX);
                        out[(*n)++] = written(L, a, arena);
                        while (k < m->recipient_n && !str_eq(envelope[k], a->addr))
                                k++;
                        if (k == m->recipient_n)
                                envelope[m->recipient_n++] = a->addr;
                }
        return out;
}

static void add_recipients(struct mail *m, int to)
{
        lua_State *L = m->L;
        struct str *envelope = state_alloc(L, m->plan->arena, RECIPIENTS_MAX * sizeof *envelope);

        m->c->to = recipients(m, to, "to", envelope, &m->c->to_n);
        if (!lua_isnoneornil(L, m->options)) {
                lua_getfield(L, m->options, "cc");
                m->c->cc = recipients(m, lua_gettop(L), "cc", envelope, &m->c->cc_n);
                lua_getfield(L, m->options, "bcc");
                m->c->bcc = recipients(m, lua_gettop(L), "bcc", envelope, &m->c->bcc_n);
                lua_pop(L, 2);
        }
        m->recipients = envelope;
        if (m->recipient_n == 0)
                luaL_error(L, "%s: there is no recipient", m->verb);
}

/* The smarthost named, or the only one. */
static const struct host *choose_host(struct mail *m)
{
        struct engine *en = engine_of(m->L);
        struct str name = options_str(m->L, m->options, "smarthost", m->plan->arena);
        const char *names[HOSTS_MAX];

        if (en->host_n == 0)
                luaL_error(m->L, "%s: the script declares no mail.smarthost to send through", m->verb);
        if (!name.p)
                return &en->hosts[0];
        for (size_t i = 0; i < en->host_n; i++) {
                names[i] = en->hosts[i].smtp.name.p;
                if (str_eq(name, en->hosts[i].smtp.name))
                        return &en->hosts[i];
        }
        face_unknown(m->L, "smarthost", name, names, en->host_n);
        return NULL;
}

/* option from; else what the smarthost says; else its user, or the account's, where that is an address. */
static void choose_sender(struct mail *m, const struct host *h)
{
        const struct account *a = m->plan->source ? m->plan->source->account : NULL;
        struct str from = options_str(m->L, m->options, "from", m->plan->arena);
        const struct addr *address;

        if (!from.n)
                from = h->from;
        if (!from.n && str_find(h->smtp.user, '@') < h->smtp.user.n)
                from = h->smtp.user;
        if (!from.n && a && str_find(a->user, '@') < a->user.n)
                from = a->user;
        if (!from.n)
                luaL_error(m->L, "%s: whom is it from? Say from = \"me@example.com\" here or in mail.smarthost", m->verb);
        address = parse(m->L, "from", from, m->plan->arena);
        if (address->next)
                luaL_error(m->L, "from: one address is expected");
        m->c->from = written(m->L, address, m->plan->arena);
        m->sender = address->addr;
}

/* Texts */

static struct str one_line(struct mail *m, const char *name)
{
        struct str s = options_str(m->L, m->options, name, m->plan->arena);

        options_plain(m->L, lua_pushfstring(m->L, "option %s", name), s);
        lua_pop(m->L, 1);
        return s.p ? s : STR("");
}

/* Fields that composing writes itself: twice would say two things. */
static void add_headers(struct mail *m)
{
        static const char *const ours[] = { "From", "To", "Cc", "Bcc", "Subject", "Date", "Message-ID", "MIME-Version", "In-Reply-To",
                                            "References", "Reply-To", "Sender", "Return-Path", "Received" };

        if (lua_isnoneornil(m->L, m->options))
                return;
        m->c->fields = effects_headers(m->L, m->plan, m->options);
        for (const struct compose_field *f = m->c->fields; f; f = f->next) {
                bool taken = str_starts_nocase(f->name, STR("Content-")) || str_starts_nocase(f->name, STR("Resent-")) ||
                             str_starts_nocase(f->name, STR("X-Mailmill-"));
                for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
                        taken |= str_eq_nocase(f->name, str_of(ours[i]));
                if (taken)
                        luaL_error(m->L, "option headers: %s is set by mailmill itself", f->name.p);
                if (!f->value.p)
                        luaL_error(m->L, "option headers: there is no %s to remove from a new mail", f->name.p);
        }
}

/* A part, a message, or { name =, type =, content = } or { part =, name =, type = }. The value is on top of the stack. */
static struct compose_file *read_file(struct mail *m)
{
        static const char *const names[] = { "part", "name", "type", "content" };
        lua_State *L = m->L;
        struct compose_file *f = state_alloc(L, m->plan->arena, sizeof *f);
        struct plan *owner = NULL;
        int at = lua_gettop(L);
        struct err e;

        f->bytes = f->name = f->type = STR("");
        if (lua_istable(L, at)) {
                OPTIONS_CHECK(L, at, "an attachment", names);
                f->name = options_str(L, at, "name", m->plan->arena);
                f->type = options_str(L, at, "type", m->plan->arena);
                f->bytes = options_str(L, at, "content", m->plan->arena);
                options_plain(L, "an attachment's name", f->name);
                options_plain(L, "an attachment's type", f->type);
                if (lua_getfield(L, at, "part") != LUA_TNIL)
                        f->part = face_check_part(L, -1, &owner);
                if (!f->part == !f->bytes.p)
                        luaL_error(L, "an attachment has either a part or content");
                if (f->bytes.p && !f->name.n)
                        luaL_error(L, "an attachment made of content needs a name");
                if (f->part && !f->name.p && !part_is_root(f->part))
                        f->name = part_name(f->part);
        } else {
                f->part = face_check_part(L, at, &owner);
                f->name = part_is_root(f->part) ? STR_NONE : part_name(f->part);
        }
        if (f->part && owner && owner != m->plan)
                luaL_error(L, "an attachment is of another message than the one being decided");
        if (f->part && !part_readable(f->part, &e))
                face_raise(L, &e);
        if (f->part && part_is_root(f->part)) {
                f->type = f->type.n ? f->type : STR("message/rfc822");
                f->name = f->name.n ? f->name : STR("message.eml");
        }
        f->name = f->name.p ? f->name : STR("");
        f->type = f->type.p ? f->type : STR("");
        lua_settop(L, at);
        return f;
}

static void add_files(struct mail *m)
{
        lua_State *L = m->L;
        struct compose_file **last = &m->c->files;
        lua_Integer n;

        if (lua_isnoneornil(L, m->options))
                return;
        if (lua_getfield(L, m->options, "attachments") != LUA_TNIL) {
                if (lua_type(L, -1) != LUA_TTABLE)
                        luaL_error(L, "option attachments: a list of parts is expected");
                n = luaL_len(L, -1);
                if (n > FILES_MAX)
                        luaL_error(L, "option attachments: more than %d", FILES_MAX);
                for (lua_Integer i = 1; i <= n; i++) {
                        lua_geti(L, -1, i);
                        *last = read_file(m);
                        last = &(*last)->next;
                        lua_pop(L, 1);
                }
        }
        lua_pop(L, 1);
}

/* Making one */

static struct mail begin(lua_State *L, struct plan *p, int options, const char *verb)
{
        struct mail m = { .L = L, .plan = p, .options = options, .verb = verb };

        m.c = state_alloc(L, p->arena, sizeof *m.c);
        m.c->subject = m.c->text = m.c->reply_to = m.c->in_reply_to = m.c->references = STR("");
        m.c->action = STR("");
        m.c->hostname = str_of(sys_hostname());
        m.c->date = state_config(p)->now;
        return m;
}

static void finish(struct mail *m)
{
        const struct host *h = choose_host(m);
        struct effect *f;

        choose_sender(m, h);
        m->at_most_once = options_bool(m->L, m->options, "at_most_once", false);
        f = effects_add(m->L, m->plan, EFFECT_MAIL);
        f->compose = m->c;
        f->verb = m->verb;
        f->sender = m->sender;
        f->recipients = m->recipients;
        f->recipient_n = m->recipient_n;
        f->smarthost = h->smtp.name;
        f->at_most_once = m->at_most_once;
}

/* Two forwarders that point at each other would never end. */
static void refuse_loop(lua_State *L, struct plan *p, const char *verb)
{
        unsigned max = state_config(p)->limits.received, n = message_received_count(p->message);

        if (n > max)
                luaL_error(L, "%s refused: the message has %d Received fields (mail.limits { received = %d }), it seems to run in a circle", verb,
                           (int)n, (int)max);
        if (message_field(p->message, STR("X-Mailmill-Action")).p || message_field(p->message, STR("X-Mailmill-Loop")).p)
                luaL_error(L, "%s refused: the message was sent by mailmill already (X-Mailmill-Action), it seems to run in a circle", verb);
}

static const char *const forward_names[] = { "as", "from", "subject", "text", "cc", "bcc", "smarthost", "at_most_once", "headers", "reply_to" };

static struct str prefixed_subject(struct mail *m, const char *prefix)
{
        struct str subject = message_subject(m->plan->message);
        char *out;

        if (str_starts_nocase(subject, str_of(prefix)))
                return subject;
        out = state_alloc(m->L, m->plan->arena, subject.n + strlen(prefix) + 2);
        memcpy(out, prefix, strlen(prefix));
        out[strlen(prefix)] = ' ';
        memcpy(out + strlen(prefix) + 1, subject.p, subject.n);
        return str_make(out, subject.n + strlen(prefix) + 1);
}

static int forward(lua_State *L)
{
        static const char *const words[] = { "attachment", "inline" };
        struct plan *p = face_check_plan(L, 1);
        struct mail m = begin(L, p, 3, "forward");
        struct str as;

        lua_settop(L, 3);
        OPTIONS_CHECK(L, 3, "forward", forward_names);
        refuse_loop(L, p, "forward");
        as = options_str(L, 3, "as", p->arena);
        if (as.p && !str_eq(as, STR("attachment")) && !str_eq(as, STR("inline")))
                return face_unknown(L, "value of as", as, words, 2);
        m.c->how = str_eq(as, STR("inline")) ? COMPOSE_INLINE : COMPOSE_ATTACH;
        m.c->original = p->message;
        add_recipients(&m, 2);
        m.c->subject = one_line(&m, "subject");
        m.c->text = options_str(L, 3, "text", p->arena);
        m.c->text = m.c->text.p ? m.c->text : STR("");
        m.c->reply_to = one_line(&m, "reply_to");
        add_headers(&m);
        finish(&m);
        return 0;
}

static int forward_part(lua_State *L)
{
        struct plan *p;
        struct mail m;

        lua_settop(L, 3);
        OPTIONS_CHECK(L, 3, "forward", forward_names);
        face_check_part(L, 1, &p);
        refuse_loop(L, p, "forward");
        m = begin(L, p, 3, "forward");
        m.c->how = COMPOSE_NEW;
        add_recipients(&m, 2);
        m.c->subject = one_line(&m, "subject");
        if (!m.c->subject.n)
                m.c->subject = prefixed_subject(&m, "Fwd:");
        m.c->text = options_str(L, 3, "text", p->arena);
        m.c->text = m.c->text.p ? m.c->text : STR("");
        m.c->reply_to = one_line(&m, "reply_to");
        add_headers(&m);
        lua_pushvalue(L, 1);
        m.c->files = read_file(&m);
        finish(&m);
        return 0;
}

static int redirect(lua_State *L)
{
        static const char *const names[] = { "from", "smarthost", "at_most_once" };
        struct plan *p = face_check_plan(L, 1);
        struct mail m = begin(L, p, 3, "redirect");

        lua_settop(L, 3);
        OPTIONS_CHECK(L, 3, "redirect", names);
        refuse_loop(L, p, "redirect");
        m.c->how = COMPOSE_REDIRECT;
        m.c->original = p->message;
        add_recipients(&m, 2);
        finish(&m);
        return 0;
}

/* RFC 3834 section 2: no answer to what no person wrote, nor to what runs in a circle. */
static const char *automatic(struct message *m, const struct addr *to, const struct limits *lim)
{
        struct str s = message_field(m, STR("Auto-Submitted"));

        if (message_received_count(m) > lim->received)
                return "it has run through too many servers (Received; limit received)";
        if (s.p && !str_starts_nocase(s, STR("no")))
                return "it was sent automatically (Auto-Submitted)";
        s = message_field(m, STR("Precedence"));
        if (str_eq_nocase(s, STR("bulk")) || str_eq_nocase(s, STR("list")) || str_eq_nocase(s, STR("junk")))
                return "it is bulk mail (Precedence)";
        if (message_list_id(m).p)
                return "it came through a mailing list (List-Id)";
        if (message_field(m, STR("X-Mailmill-Action")).p || message_field(m, STR("X-Mailmill-Loop")).p)
                return "mailmill sent it";
        s = message_field(m, STR("Return-Path"));
        if (s.p && str_eq(str_trim(s), STR("<>")))
                return "it is a report (empty Return-Path)";
        if (!to || !to->valid || !addr_check(to->addr, NULL))
                return "it names nobody to answer to";
        s = addr_user_of(to->addr);
        if (str_eq_nocase(s, STR("mailer-daemon")) || str_eq_nocase(s, STR("noreply")) || str_eq_nocase(s, STR("no-reply")))
                return "it comes from an address that reads nothing";
        return NULL;
}

/* A Message-ID that stands in a line of ours as it is. Others are left out: the answer is worth more than its place in a thread. */
static bool may_be_written(struct str id)
{
        for (size_t i = 0; i < id.n; i++)
                if (id.p[i] <= ' ' || id.p[i] >= 0x7f)
                        return false;
        return id.n > 0 && id.n <= ID_MAX;
}

static void add_thread(struct mail *m)
{
        struct message *msg = m->plan->message;
        struct str id = message_id(msg), *ids = NULL;
        size_t n = message_ids(msg, STR("References"), &ids), first = n > 20 ? n - 20 : 0;
        luaL_Buffer b;

        if (!may_be_written(id))
                return;
        lua_pushliteral(m->L, "<");
        lua_pushlstring(m->L, id.p, id.n);
        lua_pushliteral(m->L, ">");
        lua_concat(m->L, 3);
        m->c->in_reply_to = state_keep(m->L, m->plan->arena, face_check_str(m->L, -1));
        lua_pop(m->L, 1);
        luaL_buffinit(m->L, &b);
        for (size_t i = first; i < n; i++) {
                if (!may_be_written(ids[i]))
                        continue;
                luaL_addchar(&b, '<');
                luaL_addlstring(&b, ids[i].p, ids[i].n);
                luaL_addstring(&b, "> ");
        }
        luaL_addlstring(&b, m->c->in_reply_to.p, m->c->in_reply_to.n);
        luaL_pushresult(&b);
        m->c->references = state_keep(m->L, m->plan->arena, face_check_str(m->L, -1));
        lua_pop(m->L, 1);
}

static void add_quote(struct mail *m)
{
        struct str rest = str_first(message_text(m->plan->message), QUOTE_MAX), out;
        luaL_Buffer b;

        luaL_buffinit(m->L, &b);
        luaL_addlstring(&b, m->c->text.p, m->c->text.n);
        luaL_addstring(&b, "\n\n");
        while (rest.n) {
                struct str line = str_take_line(&rest);
                luaL_addstring(&b, "> ");
                luaL_addlstring(&b, line.p, line.n);
                luaL_addchar(&b, '\n');
        }
        luaL_pushresult(&b);
        out.p = lua_tolstring(m->L, -1, &out.n);
        m->c->text = state_keep(m->L, m->plan->arena, out);
        lua_pop(m->L, 1);
}

/* Marks it as automatic, so that the other side's robot stays silent. */
static void add_auto_submitted(struct mail *m)
{
        struct compose_field *f = state_alloc(m->L, m->plan->arena, sizeof *f);

        *f = (struct compose_field){ STR("Auto-Submitted"), STR("auto-replied"), m->c->fields };
        m->c->fields = f;
}

static int reply(lua_State *L)
{
        static const char *const names[] = { "text", "subject", "from", "cc", "bcc", "attachments", "headers", "quote", "smarthost", "at_most_once" };
        struct plan *p = face_check_plan(L, 1);
        struct mail m = begin(L, p, 2, "reply");
        const struct addr *to = message_addresses(p->message, STR("Reply-To"));
        const char *why;

        luaL_checktype(L, 2, LUA_TTABLE);
        lua_settop(L, 2);
        OPTIONS_CHECK(L, 2, "reply", names);
        if (!to || !to->valid)
                to = message_addresses(p->message, STR("From"));
        why = automatic(p->message, to, &state_config(p)->limits);
        if (why) {
                lua_pushnil(L);
                lua_pushfstring(L, "no reply: %s", why);
                lua_pushliteral(L, "refused");
                return 3;
        }
        m.c->text = options_str(L, 2, "text", p->arena);
        if (!m.c->text.n)
                return luaL_error(L, "reply: option text is missing");
        face_push_str(L, to->addr);
        add_recipients(&m, lua_gettop(L));
        m.c->subject = one_line(&m, "subject");
        if (!m.c->subject.n)
                m.c->subject = prefixed_subject(&m, "Re:");
        if (options_bool(L, 2, "quote", false))
                add_quote(&m);
        add_thread(&m);
        add_headers(&m);
        add_auto_submitted(&m);
        add_files(&m);
        finish(&m);
        p->last->sender = STR(""); /* RFC 3834 section 3.3: nobody answers to the answer */
        lua_pushboolean(L, 1);
        return 1;
}

static int send(lua_State *L)
{
        static const char *const names[] = { "to", "cc", "bcc", "from", "reply_to", "subject", "text", "attachments", "headers", "smarthost",
                                             "at_most_once" };
        struct plan *p = state_plan(L, "mail.send");
        struct mail m = begin(L, p, 1, "send");

        luaL_checktype(L, 1, LUA_TTABLE);
        lua_settop(L, 1);
        OPTIONS_CHECK(L, 1, "mail.send", names);
        if (p->message) /* a note to oneself about each message is a circle like any other */
                refuse_loop(L, p, "mail.send");
        lua_getfield(L, 1, "to");
        add_recipients(&m, lua_gettop(L));
        m.c->subject = one_line(&m, "subject");
        m.c->text = options_str(L, 1, "text", p->arena);
        m.c->text = m.c->text.p ? m.c->text : STR("");
        m.c->reply_to = one_line(&m, "reply_to");
        add_headers(&m);
        add_files(&m);
        finish(&m);
        return 0;
}

static const luaL_Reg message_methods[] = {
        /*** m:forward(to, options)
         * A new mail with this message in it, into the outbox; the message itself still goes where it goes. to: an address, or a list of them. Refused
         * (raises) for what has run through more servers than limits.received, and for what mailmill has sent itself.
         * option as: "attachment" (message/rfc822, the default), or "inline".
         * option from: the sender; the smarthost's by default.
         * option subject: "Fwd: " and the message's by default.
         * option text: what stands above it.
         * option cc: further addresses.
         * option bcc: addresses that nobody sees.
         * option reply_to: where answers go.
         * option headers: further header fields.
         * option smarthost: the name of the mail.smarthost to send through.
         * option at_most_once: true gives up rather than send twice, when the server's answer was lost. */
        { "forward", forward },
        /*** m:redirect(to, options)
         * The same mail onward, with Resent- fields (RFC 5322 3.6.6). Refused as m:forward.
         * option from: the resender; the smarthost's sender by default.
         * option smarthost: the name of the mail.smarthost to send through.
         * option at_most_once: true gives up rather than send twice. */
        { "redirect", redirect },
        /*** m:reply(options) -> true, or nil, sentence, code
         * Answers to Reply-To or From, marked Auto-Submitted, with the null sender (RFC 3834). What no person wrote (lists, bulk, reports, other
         * robots), and what has run through more servers than limits.received, gets no answer: nil and why.
         * option text: the answer.
         * option subject: "Re: " and the message's by default.
         * option from: the sender.
         * option cc: further addresses.
         * option bcc: addresses that nobody sees.
         * option attachments: a list of parts, or of { name =, type =, content = }.
         * option headers: further header fields.
         * option quote: true appends the message's text with "> " before each line.
         * option smarthost: the name of the mail.smarthost to send through.
         * option at_most_once: true gives up rather than send twice. */
        { "reply", reply },
        { NULL, NULL },
};

static const luaL_Reg part_methods[] = {
        /*** part:forward(to, options)
         * A new mail with this part as its attachment, into the outbox.
         * option from: the sender.
         * option subject: "Fwd: " and the message's by default.
         * option text: the text beside it.
         * option cc: further addresses.
         * option bcc: addresses that nobody sees.
         * option reply_to: where answers go.
         * option headers: further header fields.
         * option smarthost: the name of the mail.smarthost to send through.
         * option at_most_once: true gives up rather than send twice. */
        { "forward", forward_part },
        { NULL, NULL },
};

static const luaL_Reg mail_functions[] = {
        /*** mail.send(options)
         * A mail of your own, into the outbox; in a handler or in mail.on_finish. In a handler refused as m:forward: a mail for each mail may come back.
         * option to: an address, or a list of them.
         * option cc: further addresses.
         * option bcc: addresses that nobody sees.
         * option from: the sender; the smarthost's by default.
         * option reply_to: where answers go.
         * option subject: one line.
         * option text: the text.
         * option attachments: a list of parts of the message in hand, or of { name =, type =, content = }.
         * option headers: further header fields.
         * option smarthost: the name of the mail.smarthost to send through.
         * option at_most_once: true gives up rather than send twice. */
        { "send", send },
        { NULL, NULL },
};

int luaopen_forward(lua_State *L)
{
        face_add_methods(L, FACE_MESSAGE, message_methods);
        face_add_methods(L, FACE_PART, part_methods);
        lua_getglobal(L, "mail");
        luaL_setfuncs(L, mail_functions, 0);
        return 0;
}
