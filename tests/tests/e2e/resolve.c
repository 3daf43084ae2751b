// Asks the C library for the addresses of each name, of both families, and prints those of IPv4, sorted.
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int compare(const void *one, const void *other) { return strcmp(one, other); }

int main(int count, char **names) {
    for (int at = 1; at < count; at++) {
        struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
        char texts[64][INET_ADDRSTRLEN];
        int known = 0;
        if (getaddrinfo(names[at], NULL, &hints, &found) == 0)
            for (struct addrinfo *each = found; each && known < 64; each = each->ai_next)
                if (each->ai_family == AF_INET)
                    inet_ntop(AF_INET, &((struct sockaddr_in *)each->ai_addr)->sin_addr, texts[known++],
                              INET_ADDRSTRLEN);
        qsort(texts, known, sizeof *texts, compare);
        printf("%s:", names[at]);
        for (int which = 0; which < known; which++)
            printf(" %s", texts[which]);
        puts(known ? "" : " nothing");
    }
}
