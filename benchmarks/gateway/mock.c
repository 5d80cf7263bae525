/* An engine's stand-in that costs next to nothing: one epoll thread on any number of sockets.
 *
 *   mock PLACE...     each the path of a unix socket, or a port of 127.0.0.1
 *
 * /engine/...: the verbs of the embedded engine, which does whatever it is told and has one base, "tiny-base"; one
 * answer that is an answer to each (src/tunewarden/engine_protocol/messages.py). Evictions are of one model.
 * GET /v1/models: one model. Anything else: a whole answer, or, if its body has "stream":true, an SSE stream of
 * 64 chunks, each its own send(), then its usage and [DONE]. An answer names the model that the request named.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CHUNKS 64
#define ROOM (1 << 20)
#define FILES 8192

struct connection { char *in; size_t n; };
static struct connection *connections[FILES];

static void put(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
		if (sent <= 0)
			return;
		bytes += sent;
		n -= sent;
	}
}

static void put_json(int fd, const char *body)
{
	char out[4096];
	int n = snprintf(out, sizeof out,
		"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 09:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: %zu\r\n"
		"content-type: application/json\r\n\r\n%s", strlen(body), body);
	put(fd, out, n);
}

static void put_event(int fd, const char *data)
{
	char out[2048];
	int n = snprintf(out, sizeof out, "%zx\r\ndata: %s\n\n\r\n", strlen(data) + 8, data);
	put(fd, out, n);
}

static const char *SHARED = "\"id\":\"chatcmpl-7f9c2ba4e88f4c6bb5f6e1d1\",\"created\":1760000000";

static void put_stream(int fd, const char *model)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\n"
		"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
	char data[1500];
	put(fd, head, sizeof head - 1);
	for (int chunk = 0; chunk < CHUNKS; chunk++) {
		snprintf(data, sizeof data, "{%s,\"object\":\"chat.completion.chunk\",\"model\":\"%s\",\"choices\":[{"
			"\"index\":0,\"delta\":{\"content\":\"token %d\"},\"logprobs\":null,\"finish_reason\":null}]}",
			SHARED, model, chunk);
		put_event(fd, data);
	}
	snprintf(data, sizeof data, "{%s,\"object\":\"chat.completion.chunk\",\"model\":\"%s\",\"choices\":[],"
		"\"usage\":{\"prompt_tokens\":137,\"total_tokens\":201,\"completion_tokens\":64}}", SHARED, model);
	put_event(fd, data);
	put_event(fd, "[DONE]");
	put(fd, "0\r\n\r\n", 5);
}

static void put_whole(int fd, const char *model)
{
	char body[3000];
	snprintf(body, sizeof body, "{%s,\"object\":\"chat.completion\",\"model\":\"%s\",\"choices\":[{\"index\":0,"
		"\"message\":{\"role\":\"assistant\",\"content\":\"To reset your password, open Settings, choose Security "
		"and then press Reset password. You will receive a message with a link which is valid for thirty minutes. "
		"If it does not arrive, look into the spam folder or write to support.\",\"refusal\":null,"
		"\"annotations\":null,\"audio\":null,\"tool_calls\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
		"\"service_tier\":null,\"usage\":{\"prompt_tokens\":137,\"total_tokens\":191,\"completion_tokens\":54}}",
		SHARED, model);
	put_json(fd, body);
}

static void put_verb(int fd, const char *body)
{
	char out[1000], evicted[256] = "";
	const char *names = strstr(body, "\"names\":");
	if (names)
		sscanf(names + 8, " [ \"%255[^\"]", evicted);
	snprintf(out, sizeof out, "{\"version\":%d,\"pid\":%d,\"incarnation\":\"stand-in\",\"name\":\"x\","
		"\"base\":\"tiny-base\",\"adapters\":[],\"tombstones\":[],"
		"\"bases\":[{\"name\":\"tiny-base\",\"adapters\":[]}],"
		"\"evicted\":[{\"name\":\"%s\",\"was_loaded\":true,\"aborted\":0,\"residue\":0}]}", PROTOCOL_VERSION, getpid(), evicted);
	put_json(fd, out);
}

/* Answer every request that is whole; return what is left of the buffer. */
static size_t answer(int fd, char *in, size_t n)
{
	for (;;) {
		in[n] = 0;
		char *border = strstr(in, "\r\n\r\n");
		char *length = strcasestr(in, "\r\ncontent-length:");
		if (!border)
			return n;
		size_t size = length && length < border ? strtoul(length + 17, 0, 10) : 0;
		size_t total = border + 4 - in + size;
		if (n < total)
			return n;
		char *body = border + 4, after = in[total], model[256] = "";
		in[total] = 0;
		char *name = strstr(body, "\"model\":");
		if (name)
			sscanf(name + 8, " \"%255[^\"]", model);
		if (!strncmp(strchrnul(in, ' '), " /engine", 8))
			put_verb(fd, body);
		else if (!strncmp(in, "GET /v1/models", 14))
			put_json(fd, "{\"object\":\"list\",\"data\":[{\"id\":\"stand-in\",\"object\":\"model\"}]}");
		else if (strstr(body, "\"stream\":true"))
			put_stream(fd, model);
		else
			put_whole(fd, model);
		in[total] = after;
		n -= total;
		memmove(in, in + total, n);
	}
}

static int listen_at(const char *place)
{
	struct sockaddr_un path = {.sun_family = AF_UNIX};
	struct sockaddr_in port = {.sin_family = AF_INET, .sin_port = htons(atoi(place))};
	int yes = 1, is_path = strchr(place, '/') != 0, fd = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
	if (is_path && strlen(place) >= sizeof path.sun_path)
		return -1;
	if (is_path) {
		strcpy(path.sun_path, place);
		unlink(place);
	}
	inet_pton(AF_INET, "127.0.0.1", &port.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	/* Connections inherit it; a unix socket refuses it, and needs none. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
	if (bind(fd, is_path ? (void *)&path : (void *)&port, is_path ? sizeof path : sizeof port) || listen(fd, 1024))
		return -1;
	return fd;
}

int main(int count, char **given)
{
	struct epoll_event wanted = {.events = EPOLLIN}, seen[256];
	int watch = epoll_create1(0), last = 0;
	if (count < 2)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	for (int i = 1; i < count; i++) {
		wanted.data.fd = listen_at(given[i]);
		if (wanted.data.fd < 0) {
			perror("mock");
			return 1;
		}
		epoll_ctl(watch, EPOLL_CTL_ADD, wanted.data.fd, &wanted);
		last = wanted.data.fd;
	}
	for (;;) {
		int ready = epoll_wait(watch, seen, 256, -1);
		for (int i = 0; i < ready; i++) {
			int fd = seen[i].data.fd;
			if (fd <= last) {
				fd = accept(fd, 0, 0);
				if (fd < 0 || fd >= FILES)
					return 1;
				connections[fd] = calloc(1, sizeof *connections[fd]);
				connections[fd]->in = malloc(ROOM + 1);
				wanted.data.fd = fd;
				epoll_ctl(watch, EPOLL_CTL_ADD, fd, &wanted);
				continue;
			}
			struct connection *one = connections[fd];
			ssize_t got = recv(fd, one->in + one->n, ROOM - one->n, 0);
			if (got <= 0) {
				close(fd);
				free(one->in);
				free(one);
				continue;
			}
			one->n = answer(fd, one->in, one->n + got);
		}
	}
}
