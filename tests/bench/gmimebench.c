/* GMime as its documentation drives it: lists the structure of an mbox, or extracts its attachments, one file each.
 * usage: gmimebench list|extract MBOX [OUTDIR]
 * GMIME_MMAP=1 in the environment maps the mbox instead of reading it; GMIME_BUFFER=1 writes each file through a block buffer (GMime's own
 * flush is one write a 4 KiB block otherwise). Ends with syncfs, so that both sides have their output on disk. */
#include <fcntl.h>
#include <gmime/gmime.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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
        parts++;
        if (!extracting)
                list_part(o);
        else if (GMIME_IS_PART(o) && g_mime_part_is_attachment((GMimePart *)o))
                extract_part((GMimePart *)o);
}

static void message(GMimeMessage *m)
{
        if (!extracting) {
                InternetAddressList *f = g_mime_message_get_from(m);
                const char *subject = g_mime_message_get_subject(m);
                char *from = f ? internet_address_list_to_string(f, NULL, FALSE) : NULL;
                printf("%lu %s | %s\n", messages, from ? from : "-", subject ? subject : "-");
                g_free(from);
        }
        g_mime_message_foreach(m, part, NULL);
        messages++;
}

int main(int argc, char **argv)
{
        GMimeStream *s;
        GMimeParser *p;
        int fd, dir;

        if (argc < 3 || (fd = open(argv[2], O_RDONLY)) < 0) {
                fprintf(stderr, "usage: gmimebench list|extract MBOX [OUTDIR]\n");
                return 2;
        }
        extracting = strcmp(argv[1], "extract") == 0;
        buffered = getenv("GMIME_BUFFER") != NULL;
        if (argc > 3)
                out = argv[3];
        g_mime_init();
        s = getenv("GMIME_MMAP") ? g_mime_stream_mmap_new(fd, PROT_READ, MAP_PRIVATE) : g_mime_stream_fs_new(fd);
        p = g_mime_parser_new_with_stream(s);
        g_mime_parser_set_persist_stream(p, TRUE);
        g_mime_parser_set_format(p, GMIME_FORMAT_MBOX);
        while (!g_mime_parser_eos(p)) {
                GMimeMessage *m = g_mime_parser_construct_message(p, NULL);
                if (!m)
                        break;
                message(m);
                g_object_unref(m);
        }
        g_object_unref(p);
        g_object_unref(s);
        dir = extracting ? open(out, O_RDONLY | O_DIRECTORY) : -1;
        if (extracting && (dir < 0 || syncfs(dir) != 0)) {
                perror(out);
                return 1;
        }
        fprintf(stderr, "%lu messages %lu parts %lu attachments %lld bytes\n", messages, parts, attachments, decoded);
        return 0;
}
