// A SQLite VFS over the default one. It differs in four things: it answers what time it is from the
// log entry being applied, it notices when a write meets a full disk, it keeps and checks
// the checksums of the pages of the main file, and it keeps temporary files beside the database and their
// size within a bound: that of an entry, or that of all reads.

#include "sqlite.h"
#include "bounds.h"
#include "sums.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <sys/statvfs.h>
#endif

typedef struct sqlite3_file sqlite3_file;
typedef struct sqlite3_io_methods sqlite3_io_methods;
typedef struct sqlite3_vfs sqlite3_vfs;

struct sqlite3_file {
	const sqlite3_io_methods *pMethods;
};

// As in sqlite3.h; what is not used here is copied unseen.
struct sqlite3_io_methods {
	int iVersion;
	int (*xClose)(sqlite3_file *);
	int (*xRead)(sqlite3_file *, void *, int, int64_t);
	int (*xWrite)(sqlite3_file *, const void *, int, int64_t);
	int (*xTruncate)(sqlite3_file *, int64_t);
	int (*xSync)(sqlite3_file *, int);
	int (*xFileSize)(sqlite3_file *, int64_t *);
	int (*xLock)(sqlite3_file *, int);
	void (*others[5])(void);
	int (*xShmMap)(sqlite3_file *, int, int, int, void volatile **); // from version 2 on
	int (*xShmLock)(sqlite3_file *, int, int, int);
	void (*more[4])(void); // from version 2 and 3 on
};

struct sqlite3_vfs {
	int iVersion, szOsFile, mxPathname;
	sqlite3_vfs *pNext;
	const char *zName;
	void *pAppData;
	int (*xOpen)(sqlite3_vfs *, const char *, sqlite3_file *, int, int *);
	int (*xDelete)(sqlite3_vfs *, const char *, int);
	int (*xAccess)(sqlite3_vfs *, const char *, int, int *);
	int (*xFullPathname)(sqlite3_vfs *, const char *, int, char *);
	void *(*xDlOpen)(sqlite3_vfs *, const char *);
	void (*xDlError)(sqlite3_vfs *, int, char *);
	void (*(*xDlSym)(sqlite3_vfs *, void *, const char *))(void);
	void (*xDlClose)(sqlite3_vfs *, void *);
	int (*xRandomness)(sqlite3_vfs *, int, char *);
	int (*xSleep)(sqlite3_vfs *, int);
	int (*xCurrentTime)(sqlite3_vfs *, double *);
	int (*xGetLastError)(sqlite3_vfs *, int, char *);
	int (*xCurrentTimeInt64)(sqlite3_vfs *, int64_t *);
	void (*systemCalls[3])(void);
};

#pragma weak sqlite3_vfs_find
#pragma weak sqlite3_vfs_register
#pragma weak sqlite3_vfs_unregister
sqlite3_vfs *sqlite3_vfs_find(const char *);
int sqlite3_vfs_register(sqlite3_vfs *, int);
int sqlite3_vfs_unregister(sqlite3_vfs *);
#pragma weak sqlite3_file_control
int sqlite3_file_control(sqlite3 *, const char *, int, void *);

enum { OK = 0, BUSY = 5, NOMEM = 7, CORRUPT = 11, FULL = 13, CANTOPEN = 14, IOERR_SHORT_READ = 10 | 2 << 8, OPEN_MAIN_DB = 0x100 };
#define TEMP_SUFFIX ".tmp-" // as in removeLitter
enum { FCNTL_FILE_POINTER = 7, SHM_REGION = 32768, SHM_EXCLUSIVE = 8, WAL_WRITE_LOCK = 0 };

typedef enum { OTHER_FILE, MAIN_FILE, TEMP_FILE } file_kind;

// The methods of a file with some replaced. The default VFS has one set for database files and
// one for files that need no locks; with many more the detection of a full disk would be
// incomplete, so opening such a file fails.
typedef struct {
	sqlite3_io_methods m; // first: a file's pMethods leads here
	const sqlite3_io_methods *real;
	struct db_vfs *vfs;
	file_kind kind;
} db_methods;

enum { METHOD_SETS = 12 };

struct db_vfs {
	sqlite3_vfs base; // first: SQLite hands back a pointer to it
	sqlite3_vfs *real;
	int64_t clock; // milliseconds since the Julian epoch; 0 is the real time
	int disk_full;
	int locked_out; // somebody else holds a lock that a writer needs
	int shared;                   // by readers: their temporary files leave as much of the disk free as they take
	db_pool memory;               // of these
	int bounded;                  // it is the writer's alone; so are the next four, but for temp_used
	int64_t temp_room, temp_used; // bytes of temporary files: bound and sum
	int temp_full;                // the bound was met
	sqlite3_file *main;           // of the connection that was opened last
	char *path;                   // of the database
	char name[40];
	pthread_mutex_t mu;
	db_methods sets[METHOD_SETS]; // under mu until a file uses them
	struct db_sums *sums; // of the file that is the main file now; changes while no connection is opened
};

// What follows the file of the default VFS in memory. A main file that was replaced keeps the sums
// that it had.
typedef struct {
	struct db_sums *sums;
	char *temp_name;   // of a temporary file, for as long as it is open
	int64_t temp_size; // bytes
} db_extra;

static const db_methods *methods(sqlite3_file *f) { return (const db_methods *)f->pMethods; }

static db_extra *extra(sqlite3_file *f) { return (db_extra *)((char *)f + methods(f)->vfs->real->szOsFile); }

static int vfs_write(sqlite3_file *f, const void *p, int n, int64_t off) {
	int rc = methods(f)->real->xWrite(f, p, n, off);
	if (rc == FULL) {
		methods(f)->vfs->disk_full = 1;
	}
	return rc;
}

// ---- The main file ----

// check_from_file reads a page that the caller has only a part of, or that seems to be damaged, and
// checks it while nobody writes. It leaves the page in to, if that is not NULL.
static int check_from_file(sqlite3_file *f, struct db_sums *s, uint32_t pgno, uint32_t size, void *to) {
	unsigned char *page = malloc(size);
	if (page == NULL) {
		return NOMEM;
	}
	db_sums_lock(s);
	int rc = methods(f)->real->xRead(f, page, (int)size, (int64_t)(pgno - 1) * size);
	if (rc == IOERR_SHORT_READ) { // the rest is zeros now
		rc = OK;
	}
	if (rc == OK && pgno <= db_sums_pages(s) && !db_sums_check(s, pgno, page)) {
		db_sums_set_damaged(s, pgno);
		rc = CORRUPT;
	}
	db_sums_unlock(s);
	if (rc == OK && to != NULL) {
		memcpy(to, page, size);
	}
	free(page);
	return rc;
}

// main_read checks each page the first time it is read.
static int main_read(sqlite3_file *f, void *p, int n, int64_t off) {
	int rc = methods(f)->real->xRead(f, p, n, off);
	struct db_sums *s = extra(f)->sums;
	uint32_t size = db_sums_page_size(s);
	if ((rc != OK && rc != IOERR_SHORT_READ) || size == 0) {
		return rc;
	}
	uint32_t pages = db_sums_pages(s);
	for (int64_t i = off / size; i * size < off + n && i < pages; i++) {
		uint32_t pgno = (uint32_t)i + 1;
		if (db_sums_seen(s, pgno)) {
			continue;
		}
		int whole = i * size >= off && (i + 1) * size <= off + n;
		void *page = whole ? (char *)p + (i * size - off) : NULL;
		if (whole && db_sums_check(s, pgno, page)) {
			continue;
		}
		int bad = check_from_file(f, s, pgno, size, page);
		if (bad != OK) {
			return bad;
		}
	}
	return rc;
}

// note_write takes over the sums of what was written.
static int note_write(sqlite3_file *f, struct db_sums *s, const unsigned char *p, int n, int64_t off) {
	uint32_t size = db_sums_page_size(s);
	if (size == 0 && off == 0) { // the first page of a new database
		size = (uint32_t)n;
		db_sums_set_page_size(s, size);
	}
	if (size == 0 || off % size != 0 || n % size != 0) {
		return CORRUPT; // SQLite writes pages
	}
	for (; n > 0; n -= (int)size, off += size, p += size) {
		if (!db_sums_put(s, (uint32_t)(off / size) + 1, p)) {
			return NOMEM;
		}
	}
	return OK;
}

static int main_write(sqlite3_file *f, const void *p, int n, int64_t off) {
	struct db_sums *s = extra(f)->sums;
	db_sums_lock(s);
	int rc = vfs_write(f, p, n, off);
	if (rc == OK) {
		rc = note_write(f, s, p, n, off);
	}
	db_sums_unlock(s);
	return rc;
}

static int main_truncate(sqlite3_file *f, int64_t n) {
	struct db_sums *s = extra(f)->sums;
	db_sums_lock(s);
	int rc = methods(f)->real->xTruncate(f, n);
	uint32_t size = db_sums_page_size(s);
	if (rc == OK && size != 0) {
		uint32_t pages = (uint32_t)(n / size);
		db_sums_shrink(s, pages);
		rc = db_sums_grow(s, pages) ? OK : NOMEM;
	}
	db_sums_unlock(s);
	return rc;
}

static int main_close(sqlite3_file *f) {
	struct db_sums *s = extra(f)->sums;
	struct db_vfs *v = methods(f)->vfs;
	if (v->bounded && v->main == f) {
		v->main = NULL;
	}
	int rc = methods(f)->real->xClose(f);
	db_sums_unref(s);
	return rc;
}

// SQLite also says SQLITE_BUSY when a statement is in its own way. Only another process can hold these locks.
static int main_lock(sqlite3_file *f, int kind) {
	int rc = methods(f)->real->xLock(f, kind);
	if ((rc & 0xff) == BUSY) {
		methods(f)->vfs->locked_out = 1;
	}
	return rc;
}

static int main_shm_lock(sqlite3_file *f, int offset, int n, int flags) {
	int rc = methods(f)->real->xShmLock(f, offset, n, flags);
	if ((rc & 0xff) == BUSY && offset == WAL_WRITE_LOCK && (flags & SHM_EXCLUSIVE)) {
		methods(f)->vfs->locked_out = 1;
	}
	return rc;
}

// ---- Temporary files ----

static void temp_resize(sqlite3_file *f, int64_t size) {
	__atomic_add_fetch(&methods(f)->vfs->temp_used, size - extra(f)->temp_size, __ATOMIC_RELAXED);
	extra(f)->temp_size = size;
}

// Whether a temporary file of this thread's was refused room since that was asked last.
static __thread int read_refused;

int db_vfs_read_refused(void) {
	int refused = read_refused;
	read_refused = 0;
	return refused;
}

// leaves_room says whether readers may have so many bytes more: not if they had more than the disk has left
// for all else, since the node ends when that is full. The disk is asked each MiB.
static int leaves_room(struct db_vfs *v, int64_t more) {
#ifdef _WIN32
	return 1;
#else
	int64_t used = __atomic_load_n(&v->temp_used, __ATOMIC_RELAXED);
	struct statvfs s;
	if (used >> 20 == (used + more) >> 20 || statvfs(v->path, &s) != 0) {
		return 1;
	}
	return used + more <= (int64_t)s.f_bavail * (int64_t)s.f_frsize;
#endif
}

// temp_write counts a file as large as the end of what was written to it, holes included.
static int temp_write(sqlite3_file *f, const void *p, int n, int64_t off) {
	struct db_vfs *v = methods(f)->vfs;
	int64_t more = off + n - extra(f)->temp_size;
	if (v->bounded && more > 0 && v->temp_used + more > v->temp_room) {
		v->temp_full = 1;
		return FULL;
	}
	if (v->shared && more > 0 && !leaves_room(v, more)) {
		read_refused = 1;
		return FULL;
	}
	int rc = vfs_write(f, p, n, off);
	if ((v->bounded || v->shared) && rc == OK && more > 0) {
		temp_resize(f, off + n);
	}
	return rc;
}

static int temp_truncate(sqlite3_file *f, int64_t n) {
	int rc = methods(f)->real->xTruncate(f, n);
	if ((methods(f)->vfs->bounded || methods(f)->vfs->shared) && rc == OK && n < extra(f)->temp_size) {
		temp_resize(f, n);
	}
	return rc;
}

static int temp_close(sqlite3_file *f) {
	if (methods(f)->vfs->bounded || methods(f)->vfs->shared) {
		temp_resize(f, 0);
	}
	char *name = extra(f)->temp_name;
	int rc = methods(f)->real->xClose(f);
	free(name);
	return rc;
}

// temp_name makes the name of a temporary file: beside the database, where the operator has provided space,
// and such that what a crash leaves is known as litter.
static char *temp_name(struct db_vfs *v) {
	static uint64_t number;
	size_t n = strlen(v->path) + 32;
	char *name = malloc(n);
	if (name != NULL) {
		snprintf(name, n, "%s" TEMP_SUFFIX "%llu", v->path, (unsigned long long)__atomic_add_fetch(&number, 1, __ATOMIC_RELAXED));
	}
	return name;
}

// ---- Opening ----

static void fill_methods(db_methods *set, struct db_vfs *v, const sqlite3_io_methods *real, file_kind kind) {
	// Older versions have fewer methods, all of which SQLite's own VFS leaves in place.
	memcpy(&set->m, real, sizeof set->m);
	set->real = real;
	set->vfs = v;
	set->kind = kind;
	set->m.xWrite = vfs_write;
	if (kind == TEMP_FILE) {
		set->m.xWrite = temp_write;
		set->m.xTruncate = temp_truncate;
		set->m.xClose = temp_close;
	}
	if (kind == MAIN_FILE) {
		set->m.xRead = main_read;
		set->m.xWrite = main_write;
		set->m.xTruncate = main_truncate;
		set->m.xClose = main_close;
		set->m.xLock = main_lock;
		if (set->m.iVersion >= 2) {
			set->m.xShmLock = main_shm_lock;
		}
		if (set->m.iVersion > 2) {
			set->m.iVersion = 2; // pages are read, never mapped
		}
	}
}

static const sqlite3_io_methods *methods_for(struct db_vfs *v, const sqlite3_io_methods *real, file_kind kind) {
	const sqlite3_io_methods *found = NULL;
	pthread_mutex_lock(&v->mu);
	for (int i = 0; i < METHOD_SETS && found == NULL && real->iVersion <= 3; i++) {
		db_methods *set = &v->sets[i];
		if (set->real == NULL) {
			fill_methods(set, v, real, kind);
		}
		if (set->real == real && set->kind == kind) {
			found = &set->m;
		}
	}
	pthread_mutex_unlock(&v->mu);
	return found;
}

static int vfs_open(sqlite3_vfs *base, const char *name, sqlite3_file *f, int flags, int *out) {
	struct db_vfs *v = (struct db_vfs *)base;
	// Without sums the databases are private copies, more than one perhaps.
	file_kind kind = (flags & OPEN_MAIN_DB) != 0 && v->sums != NULL ? MAIN_FILE : name == NULL ? TEMP_FILE : OTHER_FILE;
	char *temp = NULL;
	if (kind == TEMP_FILE && (name = temp = temp_name(v)) == NULL) {
		f->pMethods = NULL;
		return NOMEM;
	}
	int rc = v->real->xOpen(v->real, name, f, flags, out);
	if (rc != OK || f->pMethods == NULL) {
		free(temp);
		return rc;
	}
	const sqlite3_io_methods *m = methods_for(v, f->pMethods, kind);
	if (m == NULL) {
		f->pMethods->xClose(f);
		f->pMethods = NULL;
		free(temp);
		return CANTOPEN;
	}
	f->pMethods = m;
	memset(extra(f), 0, sizeof(db_extra));
	extra(f)->temp_name = temp;
	if (kind == MAIN_FILE) {
		db_sums_ref(v->sums);
		extra(f)->sums = v->sums;
		if (v->bounded) {
			v->main = f;
		}
	}
	return OK;
}

static int vfs_time64(sqlite3_vfs *base, int64_t *now) {
	struct db_vfs *v = (struct db_vfs *)base;
	if (v->clock == 0) {
		return v->real->xCurrentTimeInt64(v->real, now);
	}
	*now = v->clock;
	return OK;
}

static int vfs_time(sqlite3_vfs *base, double *now) {
	int64_t ms = 0;
	int rc = vfs_time64(base, &ms);
	*now = (double)ms / 86400000.0;
	return rc;
}

// db_vfs_new registers a VFS of its own, so that two databases in one process have two clocks, and
// the readers of a database the real one. It returns NULL without memory or without a suitable default VFS.
struct db_vfs *db_vfs_new(const char *path, int bounded) {
	sqlite3_vfs *real = sqlite3_vfs_find(NULL);
	struct db_vfs *v = calloc(1, sizeof *v);
	char *copy = strdup(path);
	if (v == NULL || copy == NULL || real == NULL || real->iVersion < 2 || pthread_mutex_init(&v->mu, NULL) != 0) {
		free(copy);
		free(v);
		return NULL;
	}
	v->path = copy;
	v->bounded = bounded;
	v->temp_room = INT64_MAX;
	v->real = real;
	v->base = *real; // the other methods find what they need in pAppData
	v->base.szOsFile += (int)sizeof(db_extra);
	v->base.pNext = NULL;
	v->base.zName = v->name;
	v->base.xOpen = vfs_open;
	v->base.xCurrentTime = vfs_time;
	v->base.xCurrentTimeInt64 = vfs_time64;
	snprintf(v->name, sizeof v->name, "rqlited-%p", (void *)v);
	if (sqlite3_vfs_register(&v->base, 0) != OK) {
		pthread_mutex_destroy(&v->mu);
		free(copy);
		free(v);
		return NULL;
	}
	return v;
}

// db_vfs_share makes v one of readers, whose temporary files and memory are bounded together.
void db_vfs_share(struct db_vfs *v, int64_t memory) {
	v->shared = 1;
	v->memory.max = memory;
}

// db_vfs_memory returns the memory that the readers of v share; NULL if theirs is not bounded.
db_pool *db_vfs_memory(struct db_vfs *v) { return v != NULL && v->shared ? &v->memory : NULL; }

void db_vfs_free(struct db_vfs *v) {
	sqlite3_vfs_unregister(&v->base);
	pthread_mutex_destroy(&v->mu);
	db_sums_unref(v->sums);
	free(v->path);
	free(v);
}

// db_vfs_use says which sums the main file has that is opened from now on.
void db_vfs_use(struct db_vfs *v, struct db_sums *s) {
	struct db_sums *old = v->sums;
	db_sums_ref(s);
	v->sums = s;
	db_sums_unref(old);
}

const char *db_vfs_name(struct db_vfs *v) { return v == NULL ? NULL : v->name; }

void db_vfs_begin(struct db_vfs *v, int64_t clock) {
	v->clock = clock;
	v->disk_full = 0;
	v->locked_out = 0;
}

int db_vfs_disk_full(struct db_vfs *v) { return v->disk_full; }
int db_vfs_locked_out(struct db_vfs *v) { return v->locked_out; }

// db_vfs_room says how many bytes the temporary files may have together.
void db_vfs_room(struct db_vfs *v, int64_t room) { v->temp_room = room; }

// db_vfs_temp_full says whether they would have had more since it was asked last.
int db_vfs_temp_full(struct db_vfs *v) {
	int full = v->temp_full;
	v->temp_full = 0;
	return full;
}

// db_vfs_main_size leaves the size of the database in bytes, as of its last commit, in out. It is that in the
// WAL-index, or if there has been no commit since the WAL was opened, that of the file.
int db_vfs_main_size(struct db_vfs *v, int64_t *out) {
	void volatile *region = NULL;
	if (v->main == NULL || v->main->pMethods->iVersion < 2) {
		return CANTOPEN;
	}
	int rc = v->main->pMethods->xShmMap(v->main, 0, SHM_REGION, 0, &region);
	if (rc != OK || region == NULL) {
		return rc != OK ? rc : CANTOPEN;
	}
	const uint32_t *words = (const uint32_t *)region;
	uint16_t size = ((const uint16_t *)region)[7];
	*out = (int64_t)words[5] * (size == 1 ? 65536 : size);
	return *out > 0 ? OK : v->main->pMethods->xFileSize(v->main, out);
}

// db_wal_view copies what the WAL-index in shared memory says about the WAL. The layout is that of SQLite's
// file format document; all processes that have the database open see the same.
int db_wal_view(sqlite3 *db, db_view *out) {
	sqlite3_file *f = NULL;
	void volatile *region = NULL;
	int rc = sqlite3_file_control(db, "main", FCNTL_FILE_POINTER, &f);
	if (rc == OK && (f == NULL || f->pMethods == NULL || f->pMethods->iVersion < 2)) {
		rc = CANTOPEN;
	}
	if (rc == OK) {
		rc = f->pMethods->xShmMap(f, 0, SHM_REGION, 0, &region);
	}
	if (rc == OK && region == NULL) {
		rc = CANTOPEN;
	}
	if (rc != OK) {
		return rc;
	}
	const uint32_t *words = (const uint32_t *)region;
	out->changes = __atomic_load_n(&words[2], __ATOMIC_RELAXED);
	out->frames = __atomic_load_n(&words[4], __ATOMIC_RELAXED);
	out->pages = __atomic_load_n(&words[5], __ATOMIC_RELAXED);
	out->salt[0] = __atomic_load_n(&words[8], __ATOMIC_RELAXED);
	out->salt[1] = __atomic_load_n(&words[9], __ATOMIC_RELAXED);
	out->moved = __atomic_load_n(&words[24], __ATOMIC_RELAXED);
	out->attempted = __atomic_load_n(&words[32], __ATOMIC_RELAXED);
	return OK;
}
