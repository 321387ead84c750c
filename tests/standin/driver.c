/* A CUDA driver and an NVML without a GPU: device memory lies on the host, streams do at once what they are given.
 * At least as strictly as by the real driver, a thread without a context is refused (CUDA_ERROR_INVALID_CONTEXT, 201).
 * Declarations follow cuda.h and nvml.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NEEDS_CONTEXT if (depth == 0 || retained == 0) return 201
enum { SUCCESS = 0, CLOCK_MHZ = 1410, MILLIWATTS = 250500 };

typedef unsigned long long address;
static int the_context;
static int retained, depth_of_all;
static long buffers, hosts, events, streams;
static __thread int depth;

/* What was made and not given back: device memory, page-locked memory, events, streams, references to the context. */
void standin_left(long *found) {
    found[0] = buffers; found[1] = hosts; found[2] = events; found[3] = streams; found[4] = retained; found[5] = depth_of_all;
}

int cuInit(unsigned flags) { return SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? SUCCESS : 101; }
int cuDeviceGetName(char *text, int size, int device) { snprintf(text, size, "Stand-in GPU"); return SUCCESS; }
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = (size_t)1 << 32; return SUCCESS; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { memset(uuid, 7, 16); return SUCCESS; }
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 9 : 0; return SUCCESS; }
int cuGetErrorString(int code, const char **text) { *text = code == 201 ? "invalid device context" : "an error"; return SUCCESS; }

int cuDevicePrimaryCtxRetain(void **context, int device) { retained++; *context = &the_context; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device) { retained--; return SUCCESS; }
int cuCtxPushCurrent_v2(void *context) { depth++; depth_of_all++; return context == &the_context ? SUCCESS : 201; }
int cuCtxPopCurrent_v2(void **context) { NEEDS_CONTEXT; depth--; depth_of_all--; if (context) *context = &the_context; return SUCCESS; }
int cuCtxGetDevice(int *device) { NEEDS_CONTEXT; *device = 0; return SUCCESS; }
int cuCtxSynchronize(void) { NEEDS_CONTEXT; return SUCCESS; }

int cuStreamCreate(void **stream, unsigned flags) { NEEDS_CONTEXT; streams++; *stream = malloc(1); return SUCCESS; }
int cuStreamDestroy_v2(void *stream) { NEEDS_CONTEXT; streams--; free(stream); return SUCCESS; }
int cuStreamSynchronize(void *stream) { NEEDS_CONTEXT; return SUCCESS; }

int cuEventCreate(void **event, unsigned flags) { NEEDS_CONTEXT; events++; *event = calloc(1, sizeof(struct timespec)); return SUCCESS; }
int cuEventDestroy_v2(void *event) { NEEDS_CONTEXT; events--; free(event); return SUCCESS; }
int cuEventRecord(void *event, void *stream) { NEEDS_CONTEXT; return clock_gettime(CLOCK_MONOTONIC, event); }
int cuEventSynchronize(void *event) { NEEDS_CONTEXT; return SUCCESS; }
int cuEventElapsedTime_v2(float *ms, const struct timespec *first, const struct timespec *last) {
    NEEDS_CONTEXT;
    *ms = (last->tv_sec - first->tv_sec) * 1e3f + (last->tv_nsec - first->tv_nsec) * 1e-6f;
    return SUCCESS;
}
int cuEventElapsedTime(float *ms, const void *first, const void *last) { return cuEventElapsedTime_v2(ms, first, last); }

int cuMemAlloc_v2(address *found, size_t size) { NEEDS_CONTEXT; buffers++; *found = (address)malloc(size); return SUCCESS; }
int cuMemFree_v2(address memory) { NEEDS_CONTEXT; buffers--; free((void *)memory); return SUCCESS; }
int cuMemHostAlloc(void **found, size_t size, unsigned flags) { NEEDS_CONTEXT; hosts++; *found = malloc(size); return SUCCESS; }
int cuMemFreeHost(void *memory) { NEEDS_CONTEXT; hosts--; free(memory); return SUCCESS; }
int cuMemcpyHtoDAsync_v2(address to, const void *of, size_t size, void *stream) { NEEDS_CONTEXT; memcpy((void *)to, of, size); return SUCCESS; }
int cuMemcpyDtoHAsync_v2(void *to, address of, size_t size, void *stream) { NEEDS_CONTEXT; memcpy(to, (const void *)of, size); return SUCCESS; }

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "580.1"); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = index == 1 ? &the_context : 0; return SUCCESS; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    snprintf(text, size, device ? "GPU-07070707-0707-0707-0707-070707070707" : "GPU-00000000-0000-0000-0000-000000000000");
    return SUCCESS;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) { snprintf(text, size, device ? "Stand-in GPU" : "another"); return SUCCESS; }
int nvmlDeviceGetClockInfo(void *device, int which, unsigned *mhz) { *mhz = CLOCK_MHZ + which; return SUCCESS; }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) { *celsius = 41; return SUCCESS; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = MILLIWATTS; return SUCCESS; }
int nvmlDeviceGetPersistenceMode(void *device, int *mode) { *mode = 1; return SUCCESS; }
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) { *reasons = 0x4; return SUCCESS; }
