// Waiting for a lock of a database file, side by side with the other connections
// of the process that wait for one of the same file. Included by wait_cgo.go.
//
// If each of them looked often, forty would cost ten times what they cost with
// SQLite's own busy handler. If only one looked, the others would not hear of a
// lock of another kind. So they look in turn, one each pace (capi_pace), and each
// of them at least as often as SQLite's own handler would at that age of its wait
// (capi_most): whatever the others do, it is not worse off. Who gives the write
// lock back in this process wakes the one that has waited longest
// (capi_queue_next). Connections have nothing else to do with each other: if they
// wait for different locks, or it is another process that gives one back, that
// only means one look too many, or a turn's time.
//
// Threads. capi_busy is called by SQLite on the thread of the operation that
// waits, with the connection's mutex taken (and that of a shared cache). It takes
// capi_queue.mu inside that; nobody who holds capi_queue.mu calls SQLite or takes
// another lock, so the order is always the same and mu is free within
// microseconds. A connection is in the queue only while it sleeps: neither SQLite
// nor we are told when its next try succeeds, so one that tries is out and has
// left nothing behind. A capi_wait is freed when its connection is closed, hence
// never while it sleeps, and its queue with the last connection of the file.

#include <stdint.h>
#include <stdlib.h>

typedef struct sqlite3 sqlite3;

#ifdef _WIN32

#include <windows.h>

typedef struct { int32_t asleep; } capi_queue; // there is none

typedef struct {
	int32_t stop, asleep, timeout; // see below
	int64_t start;
	int busy; // capi_busy is installed
} capi_wait;

static void *capi_queue_new(void) { return NULL; }
static void capi_queue_free(void *p) { (void)p; }
static void capi_queue_next(void *p) { (void)p; }
static void capi_wait_up(void *p) { (void)p; }
static int capi_wait_init(capi_wait *w, capi_queue *q) { (void)w; (void)q; return 1; }
static void capi_wait_end(capi_wait *w) { (void)w; }

static int64_t capi_now(void) { return (int64_t)GetTickCount64() * 1000000; }

// capi_sleep looks again after a sixteenth of what was waited, each by itself.
static int capi_sleep(capi_wait *w, int first, int64_t now, int64_t waited, int64_t left) {
	(void)w; (void)first; (void)now;
	int64_t ns = waited / 16;
	if (ns < 100000) ns = 100000;
	if (ns > 2000000) ns = 2000000;
	if (ns > left) ns = left;
	Sleep((DWORD)((ns + 999999) / 1000000));
	return 1;
}

#else

#include <pthread.h>
#include <time.h>

typedef struct capi_wait capi_wait;

// capi_queue is who waits for locks of one file. Go reads asleep without mu.
typedef struct {
	int32_t asleep;              // how many
	pthread_mutex_t mu;          // guards the rest, and what is marked so below
	int64_t turn;                // when the last of them looks again
	int64_t calm;                // until then nobody is woken, see capi_sleep
	capi_wait *oldest, *youngest;
} capi_queue;

struct capi_wait {
	int32_t stop;    // written from Go, any thread
	int32_t asleep;  // who sets stop and then finds this calls capi_wait_up
	int32_t timeout; // ms
	int32_t woken;   // by capi_queue_next; guarded by mu
	int64_t start;   // ns, of the wait that is going on; in the queue guarded by mu
	int busy; // capi_busy is installed
	capi_queue *queue;
	pthread_cond_t wake;
	capi_wait *older, *younger; // guarded by mu
};

static int64_t capi_now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// capi_until waits for the condition until that time of capi_now, and returns 0
// if it was not that late.
static int capi_until(pthread_cond_t *c, pthread_mutex_t *mu, int64_t at) {
#ifdef __APPLE__ // a condition goes by the wall clock there, or relative
	at -= capi_now();
	if (at <= 0) return 1;
	struct timespec t = { at / 1000000000, at % 1000000000 };
	return pthread_cond_timedwait_relative_np(c, mu, &t);
#else
	struct timespec t = { at / 1000000000, at % 1000000000 };
	return pthread_cond_timedwait(c, mu, &t);
#endif
}

static int capi_cond_init(pthread_cond_t *c) {
#ifdef __APPLE__
	return pthread_cond_init(c, NULL);
#else
	pthread_condattr_t monotonic;
	int rc = pthread_condattr_init(&monotonic);
	if (rc) return rc;
	rc = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	if (!rc) rc = pthread_cond_init(c, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return rc;
#endif
}

static void *capi_queue_new(void) {
	capi_queue *q = calloc(1, sizeof *q);
	if (q && pthread_mutex_init(&q->mu, NULL)) {
		free(q);
		return NULL;
	}
	return q;
}

static void capi_queue_free(void *p) {
	pthread_mutex_destroy(&((capi_queue *)p)->mu);
	free(p);
}

static int capi_wait_init(capi_wait *w, capi_queue *q) {
	w->queue = q;
	return q && !capi_cond_init(&w->wake);
}

static void capi_wait_end(capi_wait *w) { pthread_cond_destroy(&w->wake); }

// capi_wait_up wakes one that sleeps and has been told to stop. It signals with
// the mutex taken: behind it, the wait may be over and freed.
static void capi_wait_up(void *p) {
	capi_wait *w = p;
	pthread_mutex_lock(&w->queue->mu);
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->queue->mu);
}

// capi_queue_next has the one that has waited longest try now.
static void capi_queue_next(void *p) {
	capi_queue *q = p;
	pthread_mutex_lock(&q->mu);
	capi_wait *w = q->oldest;
	while (w && w->woken) w = w->younger; // on its way
	if (w && capi_now() >= q->calm) {
		w->woken = 1;
		pthread_cond_signal(&w->wake);
	}
	pthread_mutex_unlock(&q->mu);
}

// capi_pace is how far apart the looks of one queue are, by what the one that
// looks has waited: a sixteenth, so that a short lock is noticed at once, and 2 ms
// at the most; 5 ms when SQLite's own handler has come to sleep for 100.
static int64_t capi_pace(int64_t waited) {
	int64_t ns = waited / 16;
	if (ns < 100000) return 100000;
	if (ns < 2000000) return ns;
	return waited < 328000000 ? 2000000 : 5000000;
}

// capi_most is how long SQLite's own busy handler sleeps when it has waited that
// long (sqliteDefaultBusyCallback in its main.c).
static int64_t capi_most(int64_t waited) {
	static const int8_t ms[] = { 1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50 };
	int64_t total = 0;
	for (int i = 0; i < (int)sizeof ms; i++) {
		total += ms[i];
		if (waited < total * 1000000) return ms[i] * 1000000;
	}
	return 100000000;
}

// capi_enqueue keeps the queue in the order in which the waits began. Those that
// come back from a try are few at a time, so it is short work from either end.
static void capi_enqueue(capi_queue *q, capi_wait *w) {
	capi_wait *before = q->youngest;
	while (before && before->start > w->start) before = before->older;
	w->older = before;
	w->younger = before ? before->younger : q->oldest;
	*(w->older ? &w->older->younger : &q->oldest) = w;
	*(w->younger ? &w->younger->older : &q->youngest) = w;
	__atomic_store_n(&q->asleep, q->asleep + 1, __ATOMIC_RELEASE);
}

static void capi_dequeue(capi_queue *q, capi_wait *w) {
	*(w->older ? &w->older->younger : &q->oldest) = w->younger;
	*(w->younger ? &w->younger->older : &q->youngest) = w->older;
	__atomic_store_n(&q->asleep, q->asleep - 1, __ATOMIC_RELEASE);
}

// capi_sleep sleeps until it is this connection's turn, it is woken, or told to
// stop, and returns 0 for the last.
static int capi_sleep(capi_wait *w, int first, int64_t now, int64_t waited, int64_t left) {
	capi_queue *q = w->queue;
	int64_t pace = capi_pace(waited), most = capi_most(waited);
	pthread_mutex_lock(&q->mu);
	// It was woken and comes back: somebody who had not waited was faster. Where
	// writers follow each other closely, waking costs them more than it brings.
	if (w->woken && !first) q->calm = now + 1000000;
	w->woken = 0;
	int64_t turn = (q->turn > now ? q->turn : now) + pace;
	int64_t last = now + (q->asleep + 1) * pace; // who had the turns up to q->turn may be gone
	if (turn > last) turn = last;
	if (turn > now + most) turn = now + most;
	if (pace >= 2000000) turn -= turn % pace; // turns that come together cost half
	if (turn > q->turn) q->turn = turn;
	if (turn > now + left) turn = now + left;
	capi_enqueue(q, w);
	// Stop (wait.go) writes stop and then reads asleep, here it is the other way
	// round, all sequentially consistent: one of the two sees the other. If it is
	// Stop, its signal waits for mu, that is, until this is in the wait or past it.
	__atomic_store_n(&w->asleep, 1, __ATOMIC_SEQ_CST);
	int stop;
	while (!(stop = __atomic_load_n(&w->stop, __ATOMIC_SEQ_CST)) && !w->woken && !capi_until(&w->wake, &q->mu, turn)) {}
	__atomic_store_n(&w->asleep, 0, __ATOMIC_RELEASE);
	capi_dequeue(q, w);
	pthread_mutex_unlock(&q->mu);
	return !stop;
}

#endif
