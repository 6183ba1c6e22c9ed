/* A small POP3 server over messages kept in memory or files: for demonstrations, tests, moving house. Loopback only. */
#ifndef CORE_SERVER_H
#define CORE_SERVER_H

#include "core/source.h"
#include "core/tls.h"

struct server_options {
        unsigned port;            /* 0: any */
        struct str user, password;
        struct tls_server *tls;   /* NULL: no TLS; else implicit TLS, and STLS with stls */
        bool stls;
        bool (*stopped)(void);    /* asked every so often */
};
struct server;
/* Reads all of src (it owns nothing of it afterwards): messages become the mailbox; UIDs are content hashes with a number for repeats. */
struct server *server_new(struct source *src, const struct server_options *o, struct err *e) MUST_CHECK;
unsigned server_port(const struct server *s);
size_t server_count(const struct server *s);
/* Serves one connection after the other in threads until stopped() says so. Deletions last as long as the process, the source is never changed. */
bool server_run(struct server *s, struct err *e) MUST_CHECK;
void server_free(struct server *s);

#endif
