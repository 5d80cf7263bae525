/* A load generator: one epoll thread, one request at a time on each of its connections.
 *
 *   load PORT CONNECTIONS SECONDS FILE
 *
 * FILE is one whole HTTP request. After a quarter of the time to warm up, it measures, and prints one line of JSON:
 * requests a second (what ended in that time), p50 and p99 in microseconds and quantiles in steps of 1/1000 (of what
 * began in it), what was not 200, and what broke.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM (1 << 18)

struct connection { int fd, is_chunked; size_t n, total; uint64_t sent_at; char head[4096]; char tail[5]; };

static char *request;
static size_t request_size;
static struct sockaddr_in address = {.sin_family = AF_INET};
static int watch;
static uint32_t *took;
static size_t done, room;
static long refused, broken, ended;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void ask(struct connection *one)
{
	one->n = one->total = one->is_chunked = 0;
	one->sent_at = now();
	if (send(one->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size)
		broken++;
}

static void connect_anew(struct connection *one)
{
	int yes = 1;
	struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = one};
	one->fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
	if (connect(one->fd, (void *)&address, sizeof address)) {
		perror("load");
		exit(1);
	}
	epoll_ctl(watch, EPOLL_CTL_ADD, one->fd, &wanted);
}

/* Take what came; return whether the answer is whole. Its head must come in the first 4 KiB. */
static int take(struct connection *one, const char *bytes, size_t n)
{
	size_t before = one->n;
	if (before < sizeof one->head - 1) {
		size_t some = sizeof one->head - 1 - before < n ? sizeof one->head - 1 - before : n;
		memcpy(one->head + before, bytes, some);
		one->head[before + some] = 0;
	}
	one->n += n;
	if (!one->total && !one->is_chunked) {
		char *border = strstr(one->head, "\r\n\r\n"), *length;
		if (!border)
			return 0;
		one->is_chunked = strcasestr(one->head, "\r\ntransfer-encoding: chunked") != 0;
		length = strcasestr(one->head, "\r\ncontent-length:");
		one->total = border + 4 - one->head + (length && length < border ? atol(length + 17) : 0);
	}
	if (!one->is_chunked)
		return one->n >= one->total;
	/* An event never holds this: its lines end in one newline. */
	size_t kept = n < 5 ? n : 5;
	memmove(one->tail, one->tail + kept, 5 - kept);
	memcpy(one->tail + 5 - kept, bytes + n - kept, kept);
	return !memcmp(one->tail, "0\r\n\r\n", 5);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

int main(int count, char **given)
{
	static char in[ROOM];
	struct epoll_event seen[256];
	if (count != 5)
		return 2;
	int n = atoi(given[2]);
	address.sin_port = htons(atoi(given[1]));
	inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
	FILE *file = fopen(given[4], "rb");
	request = malloc(ROOM);
	request_size = file ? fread(request, 1, ROOM, file) : 0;
	struct connection *all = calloc(n, sizeof *all);
	watch = epoll_create1(0);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < n; i++)
		connect_anew(&all[i]);
	uint64_t length = atof(given[3]) * 1e9, began = now() + length / 4, end = began + length;
	for (int i = 0; i < n; i++)
		ask(&all[i]);
	for (uint64_t t = 0; t < end;) {
		int ready = epoll_wait(watch, seen, 256, 100);
		for (int i = 0; i < ready; i++) {
			struct connection *one = seen[i].data.ptr;
			ssize_t got = recv(one->fd, in, sizeof in, 0);
			if (got <= 0) {
				broken++;
				close(one->fd);
				connect_anew(one);
				ask(one);
				continue;
			}
			if (!take(one, in, got))
				continue;
			t = now();
			ended += t >= began;
			refused += memcmp(one->head, "HTTP/1.1 200", 12) != 0;
			if (one->sent_at >= began) {
				if (done == room)
					took = realloc(took, (room = room ? room * 2 : 1 << 16) * sizeof *took);
				took[done++] = (t - one->sent_at) / 100;
			}
			ask(one);
		}
		t = now();
	}
	qsort(took, done, sizeof *took, by_size);
	printf("{\"rate\": %.1f, \"p50\": %.1f, \"p99\": %.1f, \"refused\": %ld, \"broken\": %ld, \"quantiles\": [",
		ended / (length / 1e9), done ? took[done / 2] / 10.0 : 0, done ? took[done * 99 / 100] / 10.0 : 0, refused, broken);
	for (int i = 0; i < 1000 && done; i++)
		printf(i ? ", %.0f" : "%.0f", took[done * i / 1000] / 10.0);
	printf("]}\n");
	return 0;
}
