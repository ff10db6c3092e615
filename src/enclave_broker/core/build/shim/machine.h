/* What the engine has instead of an operating system: a clock that stands still within a step, and verdicts, which no
   script can catch. Owns the report, which the host reads out of our memory. */

enum { MEMORY_LIMIT = 1, STDOUT_LIMIT = 3, HOST_MEMORY = 5 };

/* Where the effects are. `committed` grows by whole records, so that the host may stop the engine at any moment and
   take what stands there, with a closing bracket, for valid JSON. */
static struct {
    volatile uint32_t text, committed, ended, verdict;
} report;

static double now_ms;

static _Noreturn void stop(uint32_t verdict)
{
    report.verdict = verdict;
    __builtin_trap();
}

/* WASI, as plain functions: the module imports nothing. */
#define WASI(name) __imported_wasi_snapshot_preview1_##name
enum { WASI_OK = 0, WASI_BADF = 8, WASI_SPIPE = 70 };

int32_t WASI(clock_time_get)(int32_t clock, int64_t precision, int32_t result)
{
    /* By whole microseconds, which a double holds exactly; nanoseconds would lose a millisecond here and there. */
    *(uint64_t *)(uintptr_t)result = now_ms > 0 ? (uint64_t)(now_ms * 1e3) * 1000 : 0;
    return WASI_OK;
}
int32_t WASI(clock_res_get)(int32_t clock, int32_t result)
{
    *(uint64_t *)(uintptr_t)result = 1000000;
    return WASI_OK;
}
int32_t WASI(fd_write)(int32_t fd, int32_t vectors, int32_t count, int32_t written)
{
    *(uint32_t *)(uintptr_t)written = 0;
    return WASI_BADF;
}
int32_t WASI(fd_read)(int32_t fd, int32_t vectors, int32_t count, int32_t read) { return WASI_BADF; }
int32_t WASI(fd_close)(int32_t fd) { return WASI_BADF; }
int32_t WASI(fd_seek)(int32_t fd, int64_t offset, int32_t whence, int32_t result) { return WASI_SPIPE; }
int32_t WASI(fd_fdstat_get)(int32_t fd, int32_t result) { return WASI_BADF; }
int32_t WASI(environ_get)(int32_t environ, int32_t buffer) { return WASI_OK; }
int32_t WASI(environ_sizes_get)(int32_t count, int32_t size)
{
    *(uint32_t *)(uintptr_t)count = *(uint32_t *)(uintptr_t)size = 0;
    return WASI_OK;
}
_Noreturn void WASI(proc_exit)(int32_t code) { __builtin_trap(); }
