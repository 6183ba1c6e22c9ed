/* A tool that takes one message, run over a Maildir folder: a process and an output folder for each message.
 * usage: foreach CURDIR OUTDIR CMD ARG...      {} is the message, {d} its output folder (also the working folder)
 * Ends with syncfs, so that the output is on disk as it is with the others. */
#include <dirent.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int run_one(const char *message, const char *dir, char **cmd)
{
        char *argv[64];
        int n = 0, status;
        pid_t pid;

        for (; *cmd && n < 63; cmd++)
                argv[n++] = strcmp(*cmd, "{}") == 0 ? (char *)message : strcmp(*cmd, "{d}") == 0 ? (char *)dir : *cmd;
        argv[n] = NULL;
        if (mkdir(dir, 0700) != 0 || chdir(dir) != 0) {
                perror(dir);
                exit(1);
        }
        if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0) {
                perror(argv[0]);
                exit(1);
        }
        waitpid(pid, &status, 0);
        return status != 0;
}

int main(int argc, char **argv)
{
        struct dirent *e;
        unsigned n = 0, bad = 0;
        DIR *d;
        int out;

        if (argc < 4 || !(d = opendir(argv[1])) || (out = open(argv[2], O_RDONLY | O_DIRECTORY)) < 0) {
                fprintf(stderr, "usage: foreach CURDIR OUTDIR CMD ARG...\n");
                return 2;
        }
        while ((e = readdir(d))) {
                char message[4096], dir[4096];

                if (e->d_name[0] == '.')
                        continue;
                snprintf(message, sizeof message, "%s/%s", argv[1], e->d_name);
                snprintf(dir, sizeof dir, "%s/%u", argv[2], n++);
                bad += run_one(message, dir, argv + 3);
        }
        if (syncfs(out) != 0) {
                perror(argv[2]);
                return 1;
        }
        fprintf(stderr, "%u messages, %u failed\n", n, bad);
        return 0;
}
