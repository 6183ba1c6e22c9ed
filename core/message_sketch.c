#include "core/mem.h"
#include "core/message_int.h"

struct sketch *sketch_new(const struct limits *lim)
{
        struct sketch *s = mem_zero(sizeof *s);

        if (!s)
                return NULL;
        s->a = arena_new(ARENA_MAX);
        s->parser = s->a ? mime_new(lim, &s->defects, s->a) : NULL;
        if (s->parser)
                return s;
        arena_free(s->a);
        mem_free(s);
        return NULL;
}

bool sketch_feed(struct sketch *s, struct str bytes)
{
        return mime_feed(s->parser, bytes);
}

bool sketch_end(struct sketch *s)
{
        s->root = mime_end(s->parser);
        s->parser = NULL;
        return s->root;
}

void sketch_free(struct sketch *s)
{
        if (!s)
                return;
        if (s->parser)
                (void)!mime_end(s->parser); /* frees what it holds */
        arena_free(s->a);
        mem_free(s);
}

void message_take_sketch(struct message *m, struct sketch *s)
{
        m->sketch = s;
}
