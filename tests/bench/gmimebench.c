/* GMime as its documentation drives it: lists the leaves of each message, or extracts its attachments, one file each.
 * usage: gmimebench list|extract PATH [OUTDIR]      PATH: an mbox, or a folder of messages (the cur/ of a Maildir)
 * GMIME_MMAP=1 in the environment maps the files instead of reading them; GMIME_BUFFER=1 writes each file through a block buffer (GMime's own
 * flush is one write a 4 KiB block otherwise). Ends with syncfs, so that both sides have their output on disk. */
#include <dirent.h>
#include <fcntl.h>
#include <gmime/gmime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int extracting, buffered;
static const char *out = ".";
static unsigned long messages, parts, attachments;
static long long decoded;

static void list_part(GMimeObject *o)
{
        GMimeContentType *t = g_mime_object_get_content_type(o);
        const char *charset = g_mime_object_get_content_type_parameter(o, "charset");
        const char *disposition = g_mime_object_get_disposition(o);
        const char *name = GMIME_IS_PART(o) ? g_mime_part_get_filename((GMimePart *)o) : NULL;

        printf("  %s/%s %s %s %s\n", g_mime_content_type_get_media_type(t), g_mime_content_type_get_media_subtype(t),
               charset ? charset : "-", disposition ? disposition : "-", name ? name : "-");
}

static void extract_part(GMimePart *p)
{
        char path[4096];
        GMimeStream *file, *to;
        int fd;

        snprintf(path, sizeof path, "%s/%lu.%lu", out, messages, attachments++);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd < 0) {
                perror(path);
                exit(1);
        }
        file = g_mime_stream_fs_new(fd);
        to = buffered ? g_mime_stream_buffer_new(file, GMIME_STREAM_BUFFER_BLOCK_WRITE) : g_object_ref(file);
        decoded += g_mime_data_wrapper_write_to_stream(g_mime_part_get_content(p), to);
        g_mime_stream_flush(to);
        g_object_unref(to);
        g_object_unref(file);
}

static void part(GMimeObject *parent, GMimeObject *o, gpointer data)
{
        if (!GMIME_IS_PART(o))
                return;
        parts++;
        if (!extracting)
                list_part(o);
        else if (g_mime_part_is_attachment((GMimePart *)o))
                extract_part((GMimePart *)o);
}

static void list_head(GMimeMessage *m)
{
        InternetAddressList *l = g_mime_message_get_from(m);
        InternetAddress *a = l && internet_address_list_length(l) ? internet_address_list_get_address(l, 0) : NULL;
        const char *name = a ? internet_address_get_name(a) : NULL, *subject = g_mime_message_get_subject(m);
        const char *addr = a && INTERNET_ADDRESS_IS_MAILBOX(a) ? internet_address_mailbox_get_addr((InternetAddressMailbox *)a) : NULL;

        printf("%lu %s <%s> | %s\n", messages, name ? name : "", addr ? addr : "", subject ? subject : "");
}

static void message(GMimeMessage *m)
{
        messages++;
        if (!extracting)
                list_head(m);
        g_mime_message_foreach(m, part, NULL);
}

static void stream(const char *path, int mbox)
{
        int fd = open(path, O_RDONLY);
        GMimeStream *s;
        GMimeParser *p;
        GMimeMessage *m;

        if (fd < 0) {
                perror(path);
                exit(1);
        }
        s = getenv("GMIME_MMAP") ? g_mime_stream_mmap_new(fd, PROT_READ, MAP_PRIVATE) : g_mime_stream_fs_new(fd);
        p = g_mime_parser_new_with_stream(s);
        g_mime_parser_set_persist_stream(p, TRUE);
        if (mbox)
                g_mime_parser_set_format(p, GMIME_FORMAT_MBOX);
        do {
                if (!(m = g_mime_parser_construct_message(p, NULL)))
                        break;
                message(m);
                g_object_unref(m);
        } while (mbox && !g_mime_parser_eos(p));
        g_object_unref(p);
        g_object_unref(s);
}

static void folder(const char *path)
{
        DIR *d = opendir(path);
        struct dirent *e;
        char file[4096];

        while (d && (e = readdir(d))) {
                if (e->d_name[0] == '.')
                        continue;
                snprintf(file, sizeof file, "%s/%s", path, e->d_name);
                stream(file, 0);
        }
        if (d)
                closedir(d);
}

int main(int argc, char **argv)
{
        struct stat st;
        int dir;

        if (argc < 3 || stat(argv[2], &st) != 0) {
                fprintf(stderr, "usage: gmimebench list|extract PATH [OUTDIR]\n");
                return 2;
        }
        extracting = strcmp(argv[1], "extract") == 0;
        buffered = getenv("GMIME_BUFFER") != NULL;
        if (argc > 3)
                out = argv[3];
        g_mime_init();
        if (S_ISDIR(st.st_mode))
                folder(argv[2]);
        else
                stream(argv[2], 1);
        dir = extracting ? open(out, O_RDONLY | O_DIRECTORY) : -1;
        if (extracting && (dir < 0 || syncfs(dir) != 0)) {
                perror(out);
                return 1;
        }
        fprintf(stderr, "%lu messages %lu parts %lu attachments %lld bytes\n", messages, parts, attachments, decoded);
        return 0;
}
