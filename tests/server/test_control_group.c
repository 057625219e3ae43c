/* control_group — limits of processors and memory, in trees of files as Linux shows
 * them. */
#define _GNU_SOURCE /* nftw */
#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/control_group.h"

static char root[] = "/tmp/optimd-groups-XXXXXX";

static void begin(void)
{
    cr_assert_not_null(mkdtemp(root));
}

static int remove_one(const char *path, const struct stat *status, int kind,
                      struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

static void end(void)
{
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(control_group, .init = begin, .fini = end);

/* A file with this text, and the folders it is in. */
static void write_file(const char *path, const char *text)
{
    char name[512];
    snprintf(name, sizeof(name), "%s%s", root, path);
    for (char *at = strchr(name + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(name, 0700);
        *at = '/';
    }
    FILE *file = fopen(name, "we");
    cr_assert_not_null(file, "%s", name);
    fputs(text, file);
    fclose(file);
}

static void mount_second(void)
{
    write_file("/proc/self/mountinfo",
               "22 27 0:20 / /sys rw - sysfs sysfs rw\n"
               "35 22 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n");
}

static void mount_first(void)
{
    write_file(
        "/proc/self/mountinfo",
        "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 25 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
    write_file("/proc/self/cgroup", "9:cpuset:/elsewhere\n"
                                    "4:memory:/slurm/job_1/step_2\n"
                                    "3:cpu,cpuacct:/slurm/job_1/step_2\n"
                                    "1:name=systemd:/user.slice\n");
}

Test(control_group, of_a_machine_without_any_have_no_limit)
{
    cr_expect_eq(control_group_cores(root), UINT64_MAX);
    cr_expect_eq(control_group_memory(root), UINT64_MAX);
}

Test(control_group, has_the_least_limit_on_the_way_up_in_the_second_version)
{
    mount_second();
    write_file("/proc/self/cgroup", "0::/system.slice/optimd.service\n");
    write_file("/sys/fs/cgroup/system.slice/cpu.max", "250000 100000\n");
    write_file("/sys/fs/cgroup/system.slice/memory.max", "536870912\n");
    write_file("/sys/fs/cgroup/system.slice/optimd.service/cpu.max", "max 100000\n");
    write_file("/sys/fs/cgroup/system.slice/optimd.service/memory.max", "max\n");
    cr_expect_eq(control_group_cores(root), 2u);
    cr_expect_eq(control_group_memory(root), 536870912u);
    write_file("/sys/fs/cgroup/system.slice/optimd.service/cpu.max", "50000 100000\n");
    write_file("/sys/fs/cgroup/system.slice/optimd.service/memory.max", "1048576\n");
    cr_expect_eq(control_group_cores(root), 1u);
    cr_expect_eq(control_group_memory(root), 1048576u);
}

Test(control_group, has_the_least_limit_on_the_way_up_in_the_first_version)
{
    mount_first();
    write_file("/sys/fs/cgroup/cpu,cpuacct/slurm/job_1/cpu.cfs_quota_us", "400000\n");
    write_file("/sys/fs/cgroup/cpu,cpuacct/slurm/job_1/cpu.cfs_period_us", "100000\n");
    write_file("/sys/fs/cgroup/cpu,cpuacct/slurm/job_1/step_2/cpu.cfs_quota_us",
               "-1\n");
    write_file("/sys/fs/cgroup/cpu,cpuacct/slurm/job_1/step_2/cpu.cfs_period_us",
               "100000\n");
    write_file("/sys/fs/cgroup/memory/slurm/memory.limit_in_bytes", "268435456\n");
    write_file("/sys/fs/cgroup/memory/slurm/job_1/step_2/memory.limit_in_bytes",
               "9223372036854771712\n");
    write_file("/sys/fs/cgroup/memory/elsewhere/memory.limit_in_bytes", "1\n");
    cr_expect_eq(control_group_cores(root), 4u);
    cr_expect_eq(control_group_memory(root), 268435456u);
}

Test(control_group, of_a_container_is_where_its_mount_shows_it)
{
    /* The host's path, of which the container sees the end alone. */
    write_file("/proc/self/mountinfo", "40 39 0:30 /docker/abc /sys/fs/cgroup ro - "
                                       "cgroup2 cgroup rw\n");
    write_file("/proc/self/cgroup", "0::/docker/abc/inner\n");
    write_file("/sys/fs/cgroup/cpu.max", "300000 100000\n");
    write_file("/sys/fs/cgroup/memory.max", "67108864\n");
    write_file("/sys/fs/cgroup/inner/memory.max", "33554432\n");
    cr_expect_eq(control_group_cores(root), 3u);
    cr_expect_eq(control_group_memory(root), 33554432u);
    /* A namespace of its own: the group is above what can be seen. */
    mount_second();
    write_file("/proc/self/cgroup", "0::/../../other\n");
    cr_expect_eq(control_group_cores(root), 3u);
    cr_expect_eq(control_group_memory(root), 67108864u);
}
