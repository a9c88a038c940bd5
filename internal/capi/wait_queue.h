// Waiting for a lock of a database file, side by side with the other connections
// of the process that wait for one of the same file. Included by wait_cgo.go.
//
// If each of them looked often, forty would cost ten times what they cost with
// SQLite's own busy handler. If only one looked, the others would not hear of a
// lock of another kind. So they look in turn, one each pace (capi_pace), and each
// of them at least as often as SQLite's own handler would at that age of its wait
// (capi_most): whatever the others do, it is not worse off. Who gives the write
// lock back in this process wakes the one that has waited longest
// (capi_wait_next). Connections have nothing else to do with each other: if they
// wait for different locks, or it is another process that gives one back, that
// only means one look too many, or a turn's time.
//
// A file has a queue from the first time that one of its connections sleeps until
// the last of those that did is closed: opening a connection costs nothing.
//
// Threads. capi_busy is called by SQLite on the thread of the operation that
// waits, with the connection's mutex taken (and that of a shared cache). It takes
// capi_queue.mu inside that, and the first time capi_queues.mu; nobody who holds
// one of them calls SQLite or takes another lock, so both are free within
// microseconds. A connection is in the queue only while it sleeps: neither SQLite
// nor we are told when its next try succeeds, so one that tries is out and has
// left nothing behind. A capi_wait is freed when its connection is closed, hence
// never while it sleeps. Its queue is set once, under capi_queues.mu.

#include <stdint.h>
#include <stdlib.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <pthread.h>
#include <time.h>
#endif

typedef struct sqlite3 sqlite3;
typedef struct capi_wait capi_wait;

// capi_waiting is how many connections sleep in queues, and how many queues there
// are. Go reads it without a lock.
static struct { int32_t asleep, queues; } capi_waiting;

#ifndef _WIN32
// capi_queue is who waits for locks of one file.
typedef struct capi_queue {
	pthread_mutex_t mu;          // guards what comes next, and what is marked so below
	int64_t turn;                // when the last of them looks again
	int64_t calm;                // until then nobody is woken, see capi_sleep
	int32_t asleep;              // how many
	capi_wait *oldest, *youngest;

	uint64_t device, inode;      // of its file, 0 if it is not known
	int32_t users;               // connections; guarded by capi_queues.mu, as is next
	struct capi_queue *next;     // of its bucket
} capi_queue;
#endif

struct capi_wait {
	int32_t stop;    // written from Go, any thread
	int32_t asleep;  // who sets stop and then finds this calls capi_wait_up
	int32_t timeout; // ms
	int32_t took;    // ms, of the last long wait so far; read from Go, any thread
	int32_t told;    // the wait that is going on is a long one, and Go knows
	int64_t start;   // ns, of the wait that is going on; in the queue guarded by mu
	int busy;        // capi_busy is installed
	uint64_t device, inode; // of its file, 0 if it is not known
#ifndef _WIN32
	capi_queue *queue; // NULL until it sleeps for the first time
	pthread_cond_t wake;
	int32_t woken;     // by capi_wait_next; guarded by mu, as are the next two
	capi_wait *older, *younger;
#endif
};

static int64_t capi_now(void) {
#ifdef _WIN32
	return (int64_t)GetTickCount64() * 1000000;
#else
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#endif
}

// capi_doze is for one that has no queue: it looks again after a sixteenth of what
// was waited, 2 ms at the most.
static int capi_doze(int64_t waited, int64_t left) {
	int64_t ns = waited / 16;
	if (ns < 100000) ns = 100000;
	if (ns > 2000000) ns = 2000000;
	if (ns > left) ns = left;
#ifdef _WIN32
	Sleep((DWORD)((ns + 999999) / 1000000));
#else
	struct timespec t = { ns / 1000000000, ns % 1000000000 };
	nanosleep(&t, NULL);
#endif
	return 1;
}

#ifdef _WIN32

static void capi_wait_up(void *p) { (void)p; }
static void capi_wait_next(void *p) { (void)p; }
static void capi_leave_queue(capi_wait *w) { (void)w; }

static int capi_sleep(capi_wait *w, int first, int64_t now, int64_t waited, int64_t left) {
	(void)w; (void)first; (void)now;
	return capi_doze(waited, left);
}

#else

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

// capi_queues are those of all files.
static struct {
	pthread_mutex_t mu;
	capi_queue *buckets[64];
} capi_queues = { .mu = PTHREAD_MUTEX_INITIALIZER };

// capi_find_queue finds or makes the connection's queue, and returns NULL if there
// is no memory. A file that is not known has one for each connection. The caller
// holds capi_queues.mu.
static capi_queue *capi_find_queue(capi_wait *w) {
	int known = w->device || w->inode;
	capi_queue **bucket = &capi_queues.buckets[(w->inode ^ w->device) % 64], *q;
	for (q = *bucket; q; q = q->next) {
		if (known && q->inode == w->inode && q->device == w->device) return q;
	}
	if (!(q = calloc(1, sizeof *q))) return NULL;
	if (pthread_mutex_init(&q->mu, NULL)) {
		free(q);
		return NULL;
	}
	q->device = w->device;
	q->inode = w->inode;
	q->next = *bucket;
	*bucket = q;
	__atomic_add_fetch(&capi_waiting.queues, 1, __ATOMIC_RELAXED);
	return q;
}

// capi_join_queue returns the connection's queue, NULL if there is no memory. A
// program that has seen the connection's handle may be asleep in SQLite while
// another goroutine of it comes from the guard, so both may come here at once.
static capi_queue *capi_join_queue(capi_wait *w) {
	capi_queue *q = __atomic_load_n(&w->queue, __ATOMIC_ACQUIRE);
	if (q) return q;
	pthread_mutex_lock(&capi_queues.mu);
	if (!(q = w->queue) && !capi_cond_init(&w->wake)) {
		if ((q = capi_find_queue(w))) {
			q->users++;
			__atomic_store_n(&w->queue, q, __ATOMIC_RELEASE);
		} else {
			pthread_cond_destroy(&w->wake);
		}
	}
	pthread_mutex_unlock(&capi_queues.mu);
	return q;
}

// capi_leave_queue frees the queue with its last connection.
static void capi_leave_queue(capi_wait *w) {
	capi_queue *q = w->queue;
	if (!q) return;
	pthread_cond_destroy(&w->wake);
	pthread_mutex_lock(&capi_queues.mu);
	if (--q->users) {
		q = NULL;
	} else {
		capi_queue **at = &capi_queues.buckets[(q->inode ^ q->device) % 64];
		while (*at != q) at = &(*at)->next;
		*at = q->next;
		__atomic_sub_fetch(&capi_waiting.queues, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&capi_queues.mu);
	if (!q) return;
	pthread_mutex_destroy(&q->mu);
	free(q);
}

// capi_wait_up wakes one that sleeps and has been told to stop. It signals with
// the mutex taken: behind it, the wait may be over and freed.
static void capi_wait_up(void *p) {
	capi_wait *w = p;
	if (!__atomic_load_n(&w->asleep, __ATOMIC_SEQ_CST)) return; // by now; else it has a queue
	pthread_mutex_lock(&w->queue->mu);
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->queue->mu);
}

// capi_wait_next has the one of the same file that has waited longest try now.
static void capi_wait_next(void *p) {
	capi_wait *w = p;
	if (!w->device && !w->inode) return; // nobody else is in its queue
	capi_queue *q = capi_join_queue(w);
	if (!q) return;
	pthread_mutex_lock(&q->mu);
	for (w = q->oldest; w && w->woken; w = w->younger) {} // those are on their way
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

// capi_enqueue keeps the queue in the order in which the waits began.
static void capi_enqueue(capi_queue *q, capi_wait *w) {
	capi_wait *before = q->youngest;
	while (before && before->start > w->start) before = before->older;
	w->older = before;
	w->younger = before ? before->younger : q->oldest;
	*(w->older ? &w->older->younger : &q->oldest) = w;
	*(w->younger ? &w->younger->older : &q->youngest) = w;
	q->asleep++;
	__atomic_add_fetch(&capi_waiting.asleep, 1, __ATOMIC_RELEASE);
}

static void capi_dequeue(capi_queue *q, capi_wait *w) {
	*(w->older ? &w->older->younger : &q->oldest) = w->younger;
	*(w->younger ? &w->younger->older : &q->youngest) = w->older;
	q->asleep--;
	__atomic_sub_fetch(&capi_waiting.asleep, 1, __ATOMIC_RELEASE);
}

// capi_sleep sleeps until it is this connection's turn, it is woken, or told to
// stop, and returns 0 for the last.
static int capi_sleep(capi_wait *w, int first, int64_t now, int64_t waited, int64_t left) {
	capi_queue *q = capi_join_queue(w);
	if (!q) return capi_doze(waited, left);
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
