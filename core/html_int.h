/* Private to html*.c: the writer of lines, and the scanner that reads tags without a tree. */
#ifndef CORE_HTML_INT_H
#define CORE_HTML_INT_H

#include "core/html.h"

enum { LIST_MAX = 16, QUOTE_MAX = 8 };

/* Collapses white space and puts line ends where blocks ask for them, quotes and list markers where lines begin. */
struct writer {
        struct buf *out;
        size_t start, max;      /* out->n at the beginning; bytes that may be added */
        unsigned breaks;        /* line ends owed before the next text: 2 leave an empty line */
        bool space, gap;        /* owed: a blank, or the blanks between two cells */
        bool in_line;           /* something stands on the current line */
        unsigned pre, quote, lists;
        unsigned numbers[LIST_MAX]; /* 0: a bullet list */
        char marker[16];
        bool full;
};

void writer_text(struct writer *w, struct str utf8);
void writer_break(struct writer *w, unsigned lines);  /* at least so many line ends before what follows */
void writer_newline(struct writer *w);                /* one more: <br> */

/* True when the html can be given to a tree builder: nested less than its algorithms are quadratic in, and so on. */
bool html_is_tame(struct str html);
/* The text without a tree: tags dropped, blocks as line ends. */
void html_scan(struct str html, struct writer *w);

#endif
