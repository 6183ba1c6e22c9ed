#include "lua/options.h"

#include <dirent.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/glob.h"
#include "lua/engine.h"

enum option_kind { OPT_FLAG, OPT_TEXT, OPT_COUNT, OPT_ACCOUNT, OPT_ALLOW };

/* lua/doc.lua reads this table for the man page: one line an option. */
static const struct option {
        const char *name;
        char letter;
        enum option_kind kind;
        size_t at;
        const char *of;      /* the commands it goes with; "*": all */
        const char *value;   /* of what: for the help */
        const char *help;
} table[] = {
        { "dry-run", 'n', OPT_FLAG, offsetof(struct options, dry), "run", "", "show what would happen; nothing is changed anywhere" },
        { "json", 0, OPT_FLAG, offsetof(struct options, json), "run serve outbox state", "", "one JSON object a line on standard output" },
        { "limit", 0, OPT_COUNT, offsetof(struct options, limit), "run", "N", "at most N messages of each source" },
        { "again", 0, OPT_FLAG, offsetof(struct options, again), "run", "", "also messages that were seen before" },
        { "resume", 0, OPT_FLAG, offsetof(struct options, resume), "run", "", "go on where a run over an archive was cut off" },
        { "from-start", 0, OPT_FLAG, offsetof(struct options, from_start), "run", "", "read such an archive from its start again" },
        { "failed", 0, OPT_FLAG, offsetof(struct options, failed), "run", "", "only what is held or quarantined" },
        { "account", 0, OPT_ACCOUNT, 0, "run", "NAME", "only this account of the script's; may be given again" },
        { "send", 0, OPT_FLAG, offsetof(struct options, send), "run", "", "forwards and commands leave at once, whatever the flood guard says" },
        { "root", 0, OPT_TEXT, offsetof(struct options, root), "run", "DIR", "everything delivered and saved lies below DIR, whatever mail.root says" },
        { "state", 0, OPT_TEXT, offsetof(struct options, state), "run outbox state", "DIR", "where marks, outbox and spool lie ($XDG_STATE_HOME/mailmill)" },
        { "allow", 0, OPT_ALLOW, 0, "run check outbox state", "io|os|bytecode|modules", "give scripts what is kept from them: Lua's whole io or os library, bytecode, C modules; may be given again" },
        { "verbose", 'v', OPT_FLAG, offsetof(struct options, verbose), "*", "", "say more: log.info, what each message did" },
        { "quiet", 'q', OPT_FLAG, offsetof(struct options, quiet), "*", "", "no progress and no summary; errors alone" },
        { "help", 'h', OPT_FLAG, offsetof(struct options, help), "*", "", "this text, or that of the command or script named" },
        { "port", 0, OPT_COUNT, offsetof(struct options, port), "serve", "N", "serve: the port (any free one)" },
        { "user", 0, OPT_TEXT, offsetof(struct options, user), "serve", "NAME", "serve: the login (mailmill)" },
        { "cert", 0, OPT_TEXT, offsetof(struct options, cert), "serve", "FILE", "serve: certificate chain in PEM, for TLS" },
        { "key", 0, OPT_TEXT, offsetof(struct options, key), "serve", "FILE", "serve: its private key in PEM" },
        { "mark-all-seen", 0, OPT_FLAG, offsetof(struct options, mark_all_seen), "state", "", "state: mark what is on the server now as seen, by its UID alone where it has one; it is never deleted" },
};
enum { OPTIONS = sizeof table / sizeof *table };

static bool belongs(const struct option *o, const struct command *c)
{
        struct str rest = str_of(o->of);

        while (rest.n > 0) {
                struct str word = str_take(&rest, ' ');
                if (str_eq(word, STR("*")) || str_eq(word, str_of(c->name)))
                        return true;
        }
        return false;
}

/* A script's own options may not take the names of those that go with run. */
const char *options_name(size_t i)
{
        for (const struct option *o = table; o < table + OPTIONS; o++)
                if (belongs(o, &commands[0]) && i-- == 0)
                        return o->name;
        return NULL;
}

const char *options_short(size_t i)
{
        static const char letters[] = "n\0v\0h\0q";
        const char *name = options_name(i);

        for (const struct option *o = table; name && o < table + OPTIONS; o++)
                if (o->name == name && o->letter)
                        for (const char *p = letters; p < letters + sizeof letters; p += 2)
                                if (*p == o->letter)
                                        return p;
        return "";
}

/* Behind a script's name only those of run are ours; before any name all are, and options_parse looks again at the end. */
static const struct option *find(struct str name, const struct command *c)
{
        for (const struct option *o = table; o < table + OPTIONS; o++)
                if (str_eq(name, str_of(o->name)))
                        return c == &commands[0] && !belongs(o, c) ? NULL : o;
        return NULL;
}

static bool unknown(struct str name, const struct command *c, struct err *e)
{
        const char *names[OPTIONS], *near;
        size_t n = 0;

        for (size_t i = 0; i < OPTIONS; i++)
                if (!c || belongs(&table[i], c))
                        names[n++] = table[i].name;
        near = glob_nearest(name, names, n);
        if (near)
                return err_set(e, ERR_USAGE, "unknown option --%.*s (did you mean --%s?)", STR_FMT(name), near);
        return err_set(e, ERR_USAGE, "unknown option --%.*s (--help lists them)", STR_FMT(name));
}

static bool allow(struct options *o, struct str what, struct err *e)
{
        unsigned bit = engine_allow_word(what);
        char words[64];

        engine_allow_words(~0u, words, sizeof words);
        if (!bit)
                return err_set(e, ERR_USAGE, "--allow '%.*s': possible are %s", STR_FMT(what), words);
        o->allow |= bit;
        return true;
}

static bool set(struct options *o, const struct option *opt, const char *value, struct err *e)
{
        char *field = (char *)o + opt->at;

        o->used |= 1ul << (opt - table);
        switch (opt->kind) {
        case OPT_FLAG:
                *(bool *)field = true;
                return true;
        case OPT_TEXT:
                if (!*value)
                        return err_set(e, ERR_USAGE, "--%s: the value is empty", opt->name);
                *(const char **)field = value;
                return true;
        case OPT_COUNT:
                if (!str_to_u64(str_of(value), opt->at == offsetof(struct options, port) ? 65535 : INT64_MAX, (uint64_t *)field))
                        return err_set(e, ERR_USAGE, "--%s: '%s' is not a number that fits", opt->name, value);
                return true;
        case OPT_ACCOUNT:
                o->accounts[o->account_n++] = value;
                return true;
        case OPT_ALLOW:
                return allow(o, str_of(value), e);
        }
        return true;
}

struct words {
        char **argv;
        int argc, at;
        bool over;  /* "--" was seen */
};

/* One argument that is an option of ours; *ours tells. */
static bool long_option(struct options *o, struct words *w, const char *arg, bool *ours, struct err *e)
{
        struct str text = str_of(arg + 2), name = str_take(&text, '=');
        const struct option *opt = find(name, o->command);
        bool has_value = (arg + 2)[name.n] == '=';

        *ours = opt != NULL;
        if (!opt)
                return true;
        if (opt->kind == OPT_FLAG)
                return has_value ? err_set(e, ERR_USAGE, "--%s takes no value", opt->name) : set(o, opt, NULL, e);
        if (has_value)
                return set(o, opt, text.p, e);
        if (w->at >= w->argc)
                return err_set(e, ERR_USAGE, "--%s needs a value (%s)", opt->name, opt->value);
        return set(o, opt, w->argv[w->at++], e);
}

static bool short_option(struct options *o, const char *arg, bool *ours, struct err *e)
{
        *ours = false;
        for (size_t i = 0; i < OPTIONS && arg[1] && !arg[2]; i++)
                if (table[i].letter && table[i].letter == arg[1]) {
                        *ours = true;
                        return set(o, &table[i], NULL, e);
                }
        return true;
}

static bool take_code(struct options *o, struct words *w, struct err *e)
{
        if (o->command || o->code)
                return err_set(e, ERR_USAGE, o->code ? "-e is given twice" : "-e goes without a command or script in front of it");
        if (w->at >= w->argc)
                return err_set(e, ERR_USAGE, "-e needs the code to run, such as 'print(m.subject)'");
        o->code = w->argv[w->at++];
        o->command = &commands[0];
        return true;
}

static bool is_file(const char *path)
{
        return access(path, F_OK) == 0;
}

static bool add_name(const char **names, size_t *n, struct options *o, const char *dir)
{
        DIR *d = opendir(dir);
        struct dirent *entry;

        while (d && *n < 64 && (entry = readdir(d)) != NULL) {
                struct str s = str_of(entry->d_name);
                if (str_ends(s, STR(".lua")) && !(names[(*n)++] = arena_dup(o->arena, s.p, s.n - 4)))
                        break;
        }
        if (d)
                closedir(d);
        return d != NULL;
}

/* Where ready-made scripts lie: beside an installed binary, as configured, and beside a build directory. */
static const char *script_dir(struct options *o, size_t i)
{
        char exe[PATH_MAX];
        ssize_t n;
        struct str dir;

        if (i == 1)
                return MAILMILL_SHARE "/scripts";
        if (i > 2 || (n = readlink("/proc/self/exe", exe, sizeof exe)) <= 0)
                return NULL;
        dir = str_make(exe, (size_t)n);
        dir = str_first(dir, str_rfind(dir, '/'));
        return arena_printf(o->arena, "%.*s/%s", STR_FMT(dir), i == 0 ? "../share/mailmill/scripts" : "../scripts").p;
}

const char *options_find_script(struct options *o, const char *name)
{
        const char *dir;

        if (str_find(str_of(name), '/') < strlen(name) || !*name)
                return NULL;
        for (size_t i = 0; (dir = script_dir(o, i)) != NULL; i++) {
                struct str path = arena_printf(o->arena, "%s/%s.lua", dir, name);
                if (path.p && is_file(path.p))
                        return path.p;
        }
        return NULL;
}

static bool no_script(struct options *o, const char *name, struct err *e)
{
        const char *names[96], *near, *dir;
        size_t n = 0;

        if (str_find(str_of(name), '/') < strlen(name) || str_ends(str_of(name), STR(".lua")))
                return err_set(e, ERR_ABSENT, "%s: there is no such script", name);
        for (const struct command *c = commands; c->name; c++)
                names[n++] = c->name;
        for (size_t i = 0; (dir = script_dir(o, i)) != NULL; i++)
                add_name(names, &n, o, dir);
        near = glob_nearest(str_of(name), names, n);
        if (near && !str_eq(str_of(near), str_of(name))) /* "run run" */
                return err_set(e, ERR_USAGE, "'%s' is neither a script nor a command (did you mean '%s'?)", name, near);
        return err_set(e, ERR_USAGE, "'%s' is neither a script nor a command (--help lists the commands)", name);
}

/* A name with a slash or ".lua" is a file; else the ready-made script of that name, else a file. */
static bool take_script(struct options *o, const char *name, struct err *e)
{
        const char *found = NULL;

        if (!str_ends(str_of(name), STR(".lua")))
                found = options_find_script(o, name);
        if (!found && is_file(name))
                found = name;
        if (!found)
                return no_script(o, name, e);
        o->script = found;
        o->script_name = name;
        return true;
}

static bool first_word(struct options *o, const char *word, bool *taken, struct err *e)
{
        *taken = true;
        if (!o->command) {
                for (const struct command *c = commands; c->name; c++)
                        if (str_eq(str_of(word), str_of(c->name))) {
                                o->command = c;
                                return true;
                        }
                o->command = &commands[0];
        }
        if (o->command == &commands[0] && !o->script && !o->code)
                return take_script(o, word, e);
        *taken = false;
        return true;
}

static void add_arg(struct options *o, const char *arg)
{
        o->args[o->arg_n++] = str_of(arg);
}

static bool one_word(struct options *o, struct words *w, struct err *e)
{
        const char *arg = w->argv[w->at++];
        bool taken = false;

        if (!w->over && str_eq(str_of(arg), STR("--"))) {
                w->over = true;
                add_arg(o, arg);
                return true;
        }
        if (!w->over && str_eq(str_of(arg), STR("-e")) && !o->script)
                return take_code(o, w, e);
        if (!w->over && !o->command && str_eq(str_of(arg), STR("--version")))
                arg = "version";
        if (!w->over && arg[0] == '-' && arg[1]) {
                bool ok = arg[1] == '-' ? long_option(o, w, arg, &taken, e) : short_option(o, arg, &taken, e);

                if (!ok || taken)
                        return ok;
                if (!o->script && !o->code && (!o->command || o->command == &commands[0]))
                        return arg[1] == '-' ? unknown(str_take(&(struct str){ arg + 2, strlen(arg + 2) }, '='), o->command, e)
                                             : err_set(e, ERR_USAGE, "unknown option %s (--help lists them)", arg);
                add_arg(o, arg);
                return true;
        }
        if (!first_word(o, arg, &taken, e))
                return false;
        if (!taken)
                add_arg(o, arg);
        return true;
}

bool options_parse(struct options *o, int argc, char **argv, struct err *e)
{
        struct words w = { argv, argc, 1, false };

        o->self = argc > 0 ? argv[0] : "mailmill";
        o->arena = arena_new(0);
        o->args = o->arena ? arena_alloc(o->arena, ((size_t)argc + 1) * sizeof *o->args) : NULL;
        o->accounts = o->args ? arena_alloc(o->arena, ((size_t)argc + 1) * sizeof *o->accounts) : NULL;
        if (!o->accounts)
                return err_nomem(e);
        while (w.at < argc)
                if (!one_word(o, &w, e))
                        return false;
        for (size_t i = 0; o->command && i < OPTIONS; i++)
                if ((o->used >> i & 1) && !belongs(&table[i], o->command))
                        return err_set(e, ERR_USAGE, "--%s does not go with %s", table[i].name, o->command->name);
        return true;
}

bool options_refuse_unknown(const struct options *o, struct err *e)
{
        for (size_t i = 0; i < o->arg_n && !str_eq(o->args[i], STR("--")); i++) {
                struct str s = o->args[i];

                if (s.n < 2 || s.p[0] != '-')
                        continue;
                if (s.p[1] != '-')
                        return err_set(e, ERR_USAGE, "unknown option %.*s (--help lists them)", STR_FMT(s));
                s = str_from(s, 2);
                return unknown(str_take(&s, '='), o->command, e);
        }
        return true;
}

struct str *options_operands(const struct options *o, size_t *n)
{
        bool over = false;

        *n = 0;
        for (size_t i = 0; i < o->arg_n; i++) {
                bool mark = !over && str_eq(o->args[i], STR("--"));

                over |= mark;
                if (!mark)
                        o->args[(*n)++] = o->args[i];
        }
        return o->args;
}

static void print_option(const struct option *o)
{
        char left[64];

        snprintf(left, sizeof left, "%s--%s%s%s", o->letter ? (char[]){ '-', o->letter, ',', ' ', 0 } : "    ", o->name, *o->value ? " " : "", o->value);
        printf("  %-24s %s\n", left, o->help);
}

static void print_usage(const struct command *c)
{
        struct str usage = str_of(c->usage);

        do {
                struct str line = str_take(&usage, '\n');
                bool bare = str_starts(line, STR("-e"));

                printf("  mailmill %s%s%.*s\n", bare ? "" : c->name, bare || !line.n ? "" : " ", STR_FMT(line));
        } while (usage.n > 0);
}

void options_print_help(const struct command *only)
{
        printf(only ? "usage:\n" : "mailmill " MAILMILL_VERSION ": runs a script over mail.\n\nusage:\n");
        for (const struct command *c = commands; c->name; c++) {
                if (only && only != c)
                        continue;
                print_usage(c);
                printf("      %s\n", c->help);
        }
        if (!only)
                printf("  mailmill show|extract|fetch …\n      ready-made scripts: --help behind the name tells more\n");
        printf("\noptions:\n");
        for (size_t i = 0; i < OPTIONS; i++)
                if (!only || belongs(&table[i], only))
                        print_option(&table[i]);
        if (!only || only == commands || str_eq(str_of(only->name), STR("serve")))
                printf("\nA SOURCE is an mbox, a Maildir, an MH folder, an .eml file or a folder of them, as it is or in gz, xz, zst,\nbz2, zip or tar; or - for standard input.\n");
        if (!only || only == commands)
                printf("Sources named here replace those that the script declares.\n");
}

const char *options_state_dir(const struct options *o, struct err *e)
{
        const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
        struct str s = STR_NONE;

        if (o->state) {
                char *cwd = *o->state == '/' ? NULL : getcwd(NULL, 0); /* the journal holds absolute names */

                s = cwd ? arena_printf(o->arena, "%s/%s", cwd, o->state) : str_of(o->state);
                free(cwd);
                if (!s.p)
                        err_nomem(e);
                return s.p;
        }
        if (xdg && *xdg == '/')
                s = arena_printf(o->arena, "%s/mailmill", xdg);
        else if (home && *home)
                s = arena_printf(o->arena, "%s/.local/state/mailmill", home);
        else
                err_set(e, ERR_USAGE, "where is the state to lie? HOME is not set: --state DIR says it");
        if (!s.p && ((xdg && *xdg == '/') || (home && *home)))
                err_nomem(e);
        return s.p;
}
