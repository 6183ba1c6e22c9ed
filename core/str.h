/* Borrowed bytes: a pointer and a length, passed by value. They may hold NUL; nothing from outside is ever a C string. */
#ifndef CORE_STR_H
#define CORE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
        const char *p;
        size_t n;
};

#define STR(literal) ((struct str){ (literal), sizeof(literal) - 1 })
#define STR_NONE ((struct str){ NULL, 0 })
/* printf("%.*s", STR_FMT(s)) */
#define STR_FMT(s) (int)((s).n > 4096 ? 4096 : (s).n), (s).p ? (s).p : ""

static inline struct str str_of(const char *c) { return (struct str){ c, c ? strlen(c) : 0 }; }
static inline struct str str_make(const char *p, size_t n) { return (struct str){ p, n }; }
static inline struct str str_from(struct str s, size_t at) /* s without its first `at` bytes (at most all) */
{
        if (at > s.n)
                at = s.n;
        return at ? (struct str){ s.p + at, s.n - at } : s; /* s.p may be NULL */
}
static inline struct str str_first(struct str s, size_t n) { return (struct str){ s.p, n < s.n ? n : s.n }; }

/* ASCII classes, never the locale's. */
static inline bool ascii_is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v'; }
static inline bool ascii_is_blank(char c) { return c == ' ' || c == '\t'; }
static inline bool ascii_is_digit(char c) { return c >= '0' && c <= '9'; }
static inline bool ascii_is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static inline bool ascii_is_alnum(char c) { return ascii_is_digit(c) || ascii_is_alpha(c); }
static inline char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }
/* 0..15, or -1 */
int ascii_hex(char c);

static inline bool str_eq(struct str a, struct str b) { return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0); }
bool str_eq_nocase(struct str a, struct str b);             /* ASCII letters without case */
int str_cmp(struct str a, struct str b);                    /* byte order, shorter first */
static inline bool str_starts(struct str s, struct str prefix) { return s.n >= prefix.n && str_eq(str_first(s, prefix.n), prefix); }
bool str_starts_nocase(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
bool str_ends_nocase(struct str s, struct str suffix);
struct str str_trim(struct str s);                          /* without ASCII white space at both ends */
struct str str_trim_right(struct str s);
/* Offset of the first c (or of the needle), or s.n when it is not there. */
static inline size_t str_find(struct str s, char c)
{
        const char *at = s.n ? (const char *)memchr(s.p, c, s.n) : NULL;

        return at ? (size_t)(at - s.p) : s.n;
}
size_t str_find_str(struct str s, struct str needle);
size_t str_find_str_nocase(struct str s, struct str needle);
size_t str_rfind(struct str s, char c);                     /* the last c, or s.n */
/* Takes the bytes up to the next c off the front of *rest, and c with them; the whole rest when there is none. */
struct str str_take(struct str *rest, char c);
/* Takes one line off the front, without its line end (LF or CRLF). */
struct str str_take_line(struct str *rest);
/* A decimal number that fills all of s; false when it is not one or is larger than max. */
bool str_to_u64(struct str s, uint64_t max, uint64_t *out);
/* The UTF-8 character at the front: its length in bytes (1..4) with *code set, or 0 when s is empty or does not begin
 * with one (overlong forms, surrogates, cut sequences). */
size_t str_utf8(struct str s, uint32_t *code);

#endif
