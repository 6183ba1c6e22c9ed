#include "core/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/spawn.h"
#include "core/sys.h"

enum kind { COMMAND, VARIABLE, FILE_PATH, CREDENTIAL, PROMPT, LITERAL };

struct secret {
        enum kind kind;
        atomic_uint refs;
        char **argv;      /* COMMAND: one block */
        char *text;       /* the name, the path, the question */
        struct buf about; /* secret_describe */
        pthread_mutex_t lock;
        atomic_uint asked; /* how often; a caller that waited while it grew shares the answer */
        atomic_bool known; /* never taken back, and then value and n stay as they are */
        struct err why;   /* when it was asked for and not got */
        char *value;      /* locked, ROOM bytes */
        size_t n;         /* more than SECRET_MAX: too long */
};

enum { HIDDEN_MIN = 3 }; /* shorter, and half of what the server says would be stars */
enum { ROOM = SECRET_MAX + 3 }; /* a line end, and one byte more than may be, to notice */

static double seconds_alone = 30, seconds_at_terminal = 300;

void secret_set_limits(double alone, double at_terminal)
{
        seconds_alone = alone;
        seconds_at_terminal = at_terminal;
}

/* ---- handles --------------------------------------------------------------------------------------------------- */

struct secret *secret_ref(struct secret *s)
{
        s->refs++;
        return s;
}

void secret_unref(struct secret *s)
{
        if (!s || --s->refs > 0)
                return;
        sys_locked_free(s->value, ROOM);
        pthread_mutex_destroy(&s->lock);
        mem_free(s->argv);
        mem_free(s->text);
        buf_free(&s->about);
        mem_free(s);
}

struct str secret_describe(const struct secret *s) { return buf_str(&s->about); }
bool secret_is_literal(const struct secret *s) { return s->kind == LITERAL; }

/* A text has an end, and what is repeated there may have been cut. */
static void star_cut(char *text, size_t size, struct str value)
{
        for (size_t n = value.n < size ? value.n : size; n >= HIDDEN_MIN; n--)
                if (memcmp(text + size - n, value.p, n) == 0) {
                        memset(text + size - n, '*', n);
                        return;
                }
}

void secret_star(char *text, size_t n, struct str value)
{
        if (value.n < HIDDEN_MIN)
                return;
        while (n > 0) {
                size_t at = str_find_str(str_make(text, n), value);

                if (at >= n)
                        break;
                memset(text + at, '*', value.n);
                text += at + value.n;
                n -= at + value.n;
        }
        star_cut(text, n, value);
}

/* What stands in an error was escaped on its way in, and the secret with it. */
void secret_hide(struct err *e, struct str value)
{
        char shown[ERR_TEXT_MAX];
        size_t n;

        if (!e)
                return;
        n = log_escape(str_first(value, sizeof shown), shown, sizeof shown);
        secret_star(e->text, strlen(e->text), value);
        secret_star(e->text, strlen(e->text), str_make(shown, n));
        mem_wipe(shown, sizeof shown);
}

bool secret_known(const struct secret *s, struct str *value)
{
        if (!s || !atomic_load(&s->known))
                return false;
        *value = str_make(s->value, s->n);
        return true;
}

static struct secret *make(enum kind kind, struct str text, const char *about)
{
        struct secret *s = mem_zero(sizeof *s);

        if (!s)
                return NULL;
        s->kind = kind;
        s->refs = 1;
        pthread_mutex_init(&s->lock, NULL);
        s->text = mem_dup(text.n ? text.p : "", text.n);
        buf_add_str(&s->about, str_of(about));
        if (kind != LITERAL)
                buf_add_str(&s->about, text);
        if (s->text && buf_ok(&s->about, NULL))
                return s;
        secret_unref(s);
        return NULL;
}

/* The pointers and the strings of argv in one block. */
static char **copy_argv(const char *const *first, const char *const *rest)
{
        size_t count = 1, bytes = 0;
        const char *const *both[] = { first, rest };
        char **out, **v, *at;

        for (int i = 0; i < 2; i++) {
                for (const char *const *a = both[i]; a && *a; a++, count++)
                        bytes += strlen(*a) + 1;
        }
        v = out = mem_zero(count * sizeof *out + bytes);
        if (!out)
                return NULL;
        at = (char *)(out + count);
        for (int i = 0; i < 2; i++) {
                for (const char *const *a = both[i]; a && *a; a++) {
                        *v++ = at;
                        at = stpcpy(at, *a) + 1;
                }
        }
        return out;
}

/* Only the command's name is told: its arguments may be nobody's business. */
static struct secret *make_command(const char *const *argv, const char *const *more, const char *about, struct str name)
{
        struct secret *s = make(COMMAND, name, about);

        if (!s)
                return NULL;
        s->argv = copy_argv(argv, more);
        if (s->argv)
                return s;
        secret_unref(s);
        return NULL;
}

struct secret *secret_command(const char *const *argv)
{
        return make_command(argv, NULL, "command ", str_of(argv[0]));
}

struct secret *secret_env(struct str name) { return make(VARIABLE, name, "environment variable "); }
struct secret *secret_file(struct str path) { return make(FILE_PATH, path, "file "); }
struct secret *secret_credential(struct str name) { return make(CREDENTIAL, name, "systemd credential "); }
struct secret *secret_prompt(struct str question) { return make(PROMPT, question, "prompt "); }

struct secret *secret_keyring(const char *const *attributes)
{
        static const char *const lookup[] = { "secret-tool", "lookup", NULL };

        return make_command(lookup, attributes, "keyring (secret-tool lookup)", STR_NONE);
}

struct secret *secret_literal(struct str value)
{
        struct secret *s = make(LITERAL, STR_NONE, "password in the script");

        if (!s || !(s->value = sys_locked_new(ROOM))) {
                secret_unref(s);
                return NULL;
        }
        s->n = value.n < ROOM ? value.n : ROOM;
        if (s->n > 0)
                memcpy(s->value, value.p, s->n);
        return s;
}

/* ---- where it comes from: each fills s->value and s->n, at most ROOM bytes -------------------------------------- */

/* One command or question at a time has the terminal. */
static pthread_mutex_t terminal = PTHREAD_MUTEX_INITIALIZER;

static int open_terminal(void) { return open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY); }

static bool has_terminal(void)
{
        int tty = open_terminal();

        if (tty >= 0)
                close(tty);
        return tty >= 0;
}

static bool store(struct secret *s, struct buf *b, bool ok)
{
        if (ok) {
                s->n = b->n < ROOM ? b->n : ROOM;
                memcpy(s->value, b->p ? b->p : "", s->n);
        }
        if (b->p)
                mem_wipe(b->p, b->cap);
        buf_free(b);
        return ok;
}

static bool run_command(const struct secret *s, struct buf *out, double seconds, struct err *e)
{
        struct spawn c = { .argv = (const char *const *)s->argv, .stdin_fd = -1, .seconds = seconds, .keep_env = true,
                           .output_max = ROOM };
        int status;

        /* Room for all at once: growing would leave copies behind that nobody wipes. */
        if (!buf_reserve(out, ROOM + 8))
                return buf_ok(out, e);
        if (!spawn_run(&c, out, &status, e))
                return false;
        if (status > 128)
                return err_set(e, ERR_TEMP, "it was ended by signal %d", status - 128);
        return status == 0 ? true : err_set(e, ERR_TEMP, "it ended with status %d", status);
}

/* The length without one final line end. */
static size_t without_line_end(const char *p, size_t n)
{
        if (n == 0 || p[n - 1] != '\n')
                return n;
        return n > 1 && p[n - 2] == '\r' ? n - 2 : n - 1;
}

static bool from_command(struct secret *s, struct err *e)
{
        struct buf out = BUF_INIT;
        bool at_terminal = has_terminal(), ok;

        if (at_terminal)
                pthread_mutex_lock(&terminal);
        ok = run_command(s, &out, at_terminal ? seconds_at_terminal : seconds_alone, e);
        if (at_terminal)
                pthread_mutex_unlock(&terminal);
        out.n = without_line_end(out.p, out.n);
        return store(s, &out, ok);
}

static bool from_variable(struct secret *s, struct err *e)
{
        struct buf out = BUF_INIT;
        bool ok = spawn_getenv(str_of(s->text), &out, e);

        return store(s, &out, ok);
}

/* Straight into locked memory. */
static bool read_value(struct secret *s, int fd, struct err *e)
{
        s->n = 0;
        while (s->n < ROOM) {
                ssize_t got = sys_read(fd, s->value + s->n, ROOM - s->n, e);
                if (got < 0)
                        return false;
                if (got == 0)
                        break;
                s->n += (size_t)got;
        }
        s->n = without_line_end(s->value, s->n);
        return true;
}

/* The directory a path lies in: whoever can write to it can put another file there. */
static bool check_directory(const char *path, struct err *e)
{
        const char *slash = strrchr(path, '/');
        char *dir = slash ? mem_dup(path, slash == path ? 1 : (size_t)(slash - path)) : mem_dup(".", 1);
        struct stat st;
        bool ok;

        if (!dir)
                return err_nomem(e);
        ok = stat(dir, &st) == 0;
        if (!ok)
                err_sys(e, ERR_USAGE, errno, "looking at its directory");
        else if (st.st_mode & S_IWOTH)
                ok = err_set(e, ERR_USAGE, "everybody can write to its directory: move it to one of yours, or: chmod o-w '%s'", dir);
        mem_free(dir);
        return ok;
}

/* On the open descriptor: a name could be exchanged in between. */
static bool check_file(int fd, const char *path, bool ours, struct err *e)
{
        struct stat st;

        if (fstat(fd, &st) != 0)
                return err_sys(e, ERR_USAGE, errno, "looking at it");
        if (!S_ISREG(st.st_mode))
                return err_set(e, ERR_USAGE, "it is not a regular file");
        if (!ours)
                return true;
        if (st.st_uid != geteuid())
                return err_set(e, ERR_USAGE, "it belongs to another user (%u): chown %u '%s'", (unsigned)st.st_uid,
                               (unsigned)geteuid(), path);
        if (st.st_mode & 077)
                return err_set(e, ERR_USAGE, "others can read it or write to it (mode %04o): chmod 600 '%s'",
                               (unsigned)st.st_mode & 07777, path);
        return true;
}

static bool from_path(struct secret *s, int fd, const char *path, bool ours, struct err *e)
{
        bool ok = check_file(fd, path, ours, e) && read_value(s, fd, e);

        close(fd);
        return ok;
}

enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY }; /* a FIFO must not stop us */

static bool from_file(struct secret *s, struct err *e)
{
        int fd;

        if (!check_directory(s->text, e))
                return false;
        fd = open(s->text, OPEN_FLAGS);
        if (fd < 0 && errno == ELOOP)
                return err_set(e, ERR_USAGE, "it is a symbolic link: name the file itself, and: chmod 600 '%s'", s->text);
        if (fd < 0)
                return err_sys(e, ERR_USAGE, errno, "opening it");
        return from_path(s, fd, s->text, true, e);
}

/* The service manager made the directory, for this service alone; owner and mode are its own affair (they carry an ACL). */
static bool from_credential(struct secret *s, struct err *e)
{
        const char *dir = getenv("CREDENTIALS_DIRECTORY");
        struct str name = str_of(s->text);
        int at, fd;

        if (!dir || dir[0] != '/')
                return err_set(e, ERR_USAGE, "CREDENTIALS_DIRECTORY is not set: this is not a systemd service with credentials");
        if (name.n == 0 || str_find(name, '/') < name.n || name.p[0] == '.')
                return err_set(e, ERR_USAGE, "it is not a credential's name");
        at = sys_open(dir, O_RDONLY | O_DIRECTORY, 0, e);
        if (at < 0)
                return false;
        fd = sys_open_beneath(at, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, e);
        close(at);
        return fd >= 0 && from_path(s, fd, s->text, false, e);
}

/* ---- the terminal ---------------------------------------------------------------------------------------------- */

enum { KEY_INTERRUPT = 3, KEY_END = 4, KEY_BACKSPACE = 8, KEY_KILL = 21, KEY_DELETE = 127 };

/* The last character goes, all its UTF-8 bytes. */
static void rub_out(struct secret *s)
{
        while (s->n > 0 && ((unsigned char)s->value[--s->n] & 0xc0) == 0x80)
                ;
}

/* Bytes up to the line end. Signals from the keyboard are off, so that none leaves the terminal without echo; and with them line
 * editing, which would hold ^C back until the line ends. */
static bool read_answer(struct secret *s, int tty, struct err *e)
{
        int64_t end = sys_mono_ms() + (int64_t)(seconds_at_terminal * 1000);

        for (s->n = 0; s->n < ROOM;) {
                struct pollfd p = { .fd = tty, .events = POLLIN };
                int64_t left = end - sys_mono_ms();
                char c;
                if (left <= 0)
                        return err_set(e, ERR_TIMEOUT, "no answer within %g seconds", seconds_at_terminal);
                if (poll(&p, 1, (int)left) <= 0)
                        continue;
                if (read(tty, &c, 1) != 1 || c == KEY_INTERRUPT || c == KEY_END)
                        return err_set(e, ERR_STOPPED, "no answer");
                if (c == '\n' || c == '\r')
                        break;
                if (c == KEY_KILL)
                        s->n = 0;
                else if (c == KEY_BACKSPACE || c == KEY_DELETE)
                        rub_out(s);
                else
                        s->value[s->n++] = c;
        }
        return true;
}

static bool ask(struct secret *s, int tty, struct err *e)
{
        struct termios before, silent;
        char question[512];
        bool ok;

        if (tcgetattr(tty, &before) != 0)
                return err_sys(e, ERR_USAGE, errno, "asking on the terminal");
        silent = before;
        silent.c_lflag &= ~(tcflag_t)(ECHO | ISIG | ICANON);
        silent.c_cc[VMIN] = 1;
        silent.c_cc[VTIME] = 0;
        log_escape(str_of(s->text), question, sizeof question);
        if (tcsetattr(tty, TCSAFLUSH, &silent) != 0)
                return err_sys(e, ERR_USAGE, errno, "asking on the terminal");
        ok = sys_write_all(tty, question, strlen(question), e) && sys_write_all(tty, ": ", 2, e) && read_answer(s, tty, e);
        (void)!write(tty, "\n", 1);
        tcsetattr(tty, TCSAFLUSH, &before);
        return ok;
}

static bool from_prompt(struct secret *s, struct err *e)
{
        int tty = open_terminal();
        bool ok;

        if (tty < 0)
                return err_set(e, ERR_USAGE, "there is no terminal to ask on");
        pthread_mutex_lock(&terminal);
        ok = ask(s, tty, e);
        pthread_mutex_unlock(&terminal);
        close(tty);
        return ok;
}

/* ---- the value ------------------------------------------------------------------------------------------------- */

/* POP3 and SMTP end a line with these: sent as they are, the rest of the secret would be a command. */
static bool check_value(const struct secret *s, struct err *e)
{
        struct str v = { s->value, s->n };

        if (v.n > SECRET_MAX)
                return err_set(e, ERR_USAGE, "it is longer than %d bytes", SECRET_MAX);
        if (str_find(v, '\r') < v.n || str_find(v, '\n') < v.n || str_find(v, '\0') < v.n)
                return err_set(e, ERR_USAGE, "it holds a line end or a NUL byte");
        if (v.n == 0)
                return err_set(e, ERR_USAGE, "it is empty");
        return true;
}

static bool obtain(struct secret *s, struct err *e)
{
        if (!s->value && !(s->value = sys_locked_new(ROOM)))
                return err_nomem(e);
        switch (s->kind) {
        case COMMAND:
                return from_command(s, e);
        case VARIABLE:
                return from_variable(s, e);
        case FILE_PATH:
                return from_file(s, e);
        case CREDENTIAL:
                return from_credential(s, e);
        case PROMPT:
                return from_prompt(s, e);
        case LITERAL:
                break;
        }
        return true;
}

/* Under the lock. */
static void ask_once(struct secret *s)
{
        bool known = obtain(s, &s->why) && check_value(s, &s->why);

        atomic_store(&s->known, known);
        s->asked++;
        if (known)
                return;
        err_in(&s->why, "secret from %.*s", STR_FMT(buf_str(&s->about)));
        if (s->value && s->kind != LITERAL)
                mem_wipe(s->value, ROOM);
}

bool secret_get(struct secret *s, struct str *value, struct err *e)
{
        unsigned before = s->asked;
        bool known;

        pthread_mutex_lock(&s->lock);
        if (!s->known && s->asked == before)
                ask_once(s);
        known = s->known;
        if (known)
                *value = (struct str){ s->value, s->n };
        else if (e)
                *e = s->why;
        pthread_mutex_unlock(&s->lock);
        return known;
}
