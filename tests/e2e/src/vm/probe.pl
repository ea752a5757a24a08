#!/usr/bin/perl
# Tries what a sandbox forbids, from inside: started by ExecStartPre= of the unit itself, so with its namespaces, capabilities,
# filters and devices. `probe UNIT`: one line `PROBE UNIT NAME OUTCOME` each on standard output, which the journal takes.
use strict;
use warnings;
use Errno;
use Fcntl;

$| = 1;
my $unit = shift;
my %names;
for my $name (sort keys %!) { my $code = eval "Errno::$name()"; $names{$code} //= $name if defined $code }
sub said { my ($name, $outcome) = @_; print "PROBE $unit $name $outcome\n"; }
sub errno { return $names{ 0 + $! } // "errno-" . (0 + $!); }

# A system call by its number on x86-64: `ok`, or the error's name.
sub try {
    my ($name, @call) = @_;
    my $result = syscall($call[0], @call[1 .. $#call]);
    said($name, $result == -1 ? errno() : "ok");
}
sub opens {
    my ($name, $path, $how) = @_;
    my $done = sysopen(my $file, $path, $how);
    said($name, $done ? "ok" : errno());
    close $file if $done;
}
sub writes {
    my ($name, $path) = @_;
    opens($name, "$path/rollcall-probe", O_WRONLY | O_CREAT);
    unlink "$path/rollcall-probe";
}

# Devices: by number, so a driver that loads later is not locked out.
opens("device-gpu", "/dev/nvidia0", O_RDWR);
opens("device-gpu-other", "/dev/nvidia7", O_RDWR);
opens("device-control", "/dev/nvidiactl", O_RDWR);
opens("device-disk", "/dev/vda", O_RDONLY);
opens("device-port", "/dev/ttyS1", O_WRONLY | O_NOCTTY | O_NONBLOCK);
opens("device-console", "/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK);
opens("device-kernel-log", "/dev/kmsg", O_RDONLY | O_NONBLOCK);
opens("device-kernel-log-write", "/dev/kmsg", O_WRONLY | O_NONBLOCK);
opens("device-null", "/dev/null", O_RDWR);

# Paths.
writes("write-$_->[0]", $_->[1])
    for ["usr", "/usr"], ["etc", "/etc"], ["var-lib", "/var/lib"], ["boot", "/boot"], ["run", "/run"], ["nodeadm-dropins", "/etc/eks/nodeadm.d"],
    ["cni", "/etc/cni/net.d"], ["tmp", "/tmp"];
open my $mounts, "<", "/proc/self/mountinfo" or die "no mounts: $!";
my %mounted;
while (<$mounts>) { my @of = split; $mounted{$of[4]} = $of[5] =~ /^ro/ ? "read-only" : "writable" }
said("mount-sysctl", $mounted{"/proc/sys"} // "writable");
said("mount-cgroup", $mounted{"/sys/fs/cgroup"} // "writable");
writes("state", $ENV{STATE_DIRECTORY}) if $ENV{STATE_DIRECTORY};
writes("runtime", $ENV{RUNTIME_DIRECTORY}) if $ENV{RUNTIME_DIRECTORY};
said("home", -e "/root/seen-from-outside" ? "visible" : "hidden");
said("tmp-of-others", -e "/tmp/seen-from-outside" ? "visible" : "hidden");
said("pid-1", -d "/proc/1" ? "visible" : "hidden");

# System calls (x86-64).
my $text = "x" x 256;
try("socket-unix", 41, 1, 1, 0);
try("socket-inet", 41, 2, 1, 0);
try("socket-netlink", 41, 16, 3, 0);
try("socket-packet", 41, 17, 3, 0);
try("unshare-user", 272, 0x10000000);
try("unshare-mount", 272, 0x00020000);
try("personality", 135, 0x0020000);
my $param = pack("i", 1);
try("realtime", 144, 0, 1, $param);
# No core dump, as it is already.
my $limit = pack("QQ", 0, 0);
try("rlimit", 160, 4, $limit);
my $time = pack("qq", 0, 0);
try("clock", 227, 0, $time);
my $host = "other";
try("hostname", 170, $host, 5);
my ($from, $to, $type, $data) = ("none", "/mnt", "tmpfs", "");
try("mount", 165, $from, $to, $type, 0, $data);
try("module", 313, 0, $data, 0);
try("reboot", 169, 0, 0, 0, 0);
try("ptrace", 101, 16, 1, 0, 0);
try("bpf", 321, 0, 0, 0);
my $suid = ($ENV{RUNTIME_DIRECTORY} // "/run") . "/rollcall-probe-suid";
if (sysopen(my $file, $suid, O_WRONLY | O_CREAT)) {
    close $file;
    try("set-uid-bit", 90, $suid, 04755);
    unlink $suid;
}

# What the kernel says of us.
open my $status, "<", "/proc/self/status" or die "no status: $!";
while (<$status>) {
    said("capabilities", $1) if /^CapBnd:\s+(\S+)/;
    said("capabilities-effective", $1) if /^CapEff:\s+(\S+)/;
    said("no-new-privileges", $1) if /^NoNewPrivs:\s+(\d)/;
    said("seccomp", $1) if /^Seccomp:\s+(\d)/;
    said("user", $1 == 0 ? "root" : "own") if /^Uid:\s+(\d+)/;
}
open my $oom, "<", "/proc/self/oom_score_adj" or die "no OOM score: $!";
chomp(my $score = <$oom>);
said("oom-score", $score);
open my $limits, "<", "/proc/self/limits" or die "no limits: $!";
while (<$limits>) { said("core-limit", $1) if /^Max core file size\s+(\S+)/ }
said("umask", sprintf "%04o", umask);
said("done", "ok");
