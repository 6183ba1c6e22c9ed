#include "core/flowed.h"

/* Takes the quote marks and the stuffed blank off the front; returns the depth of quoting. */
static size_t unquote(struct str *line)
{
        size_t depth = 0;

        while (depth < line->n && line->p[depth] == '>')
                depth++;
        *line = str_from(*line, depth);
        if (line->n && line->p[0] == ' ')
                *line = str_from(*line, 1);
        return depth;
}

static void begin_paragraph(size_t depth, struct buf *out)
{
        for (size_t i = 0; i < depth; i++)
                buf_add_char(out, '>');
        if (depth)
                buf_add_char(out, ' ');
}

bool flowed_unwrap(struct str text, bool delsp, struct buf *out)
{
        bool open = false; /* the last line flows into this one, if that is quoted as deeply */
        size_t depth = 0;

        while (text.n) {
                size_t at = str_find(text, '\n'), quoted;
                struct str line = str_first(text, at);
                bool ends = at < text.n, signature;

                text = str_from(text, at + ends);
                quoted = unquote(&line);
                signature = str_eq(line, STR("-- "));
                if (open && (quoted != depth || signature || line.n == 0)) { /* an empty line is meant as one */
                        buf_add_char(out, '\n');
                        open = false;
                }
                if (!open)
                        begin_paragraph(quoted, out);
                depth = quoted;
                open = !signature && line.n && line.p[line.n - 1] == ' ';
                if (open && delsp)
                        line.n--;
                buf_add_str(out, line);
                if (ends && (!open || !text.n))
                        buf_add_char(out, '\n');
        }
        return !out->failed;
}
