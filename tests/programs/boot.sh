#!/bin/sh
# Boots Debian's kernel under qemu's emulation, with nothing but busybox, curl and a client of DHCP, and ends it when that has asked a URL:
# boot.sh KERNEL URL QEMU-WORD...; KERNEL is the folder of deploy/debian-kernel. Prints what the machine prints.
set -e
kernel=$1 url=$2
shift 2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
cd "$root"
mkdir -p files/bin files/dev files/etc files/proc files/sys
cp /bin/busybox files/bin/
for name in $(/bin/busybox --list); do [ "$name" = busybox ] || ln -sf busybox "files/bin/$name"; done
cp "$kernel"/*.ko files/
rm -f files/bin/curl
cp /usr/bin/curl files/bin/
for file in $(ldd /usr/bin/curl | grep -o '/[^ ]*'); do
    mkdir -p "files$(dirname "$file")"
    cp -L "$file" "files$file"
done
cat >files/bound <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
ip link set "$interface" mtu "$mtu"
ip route replace default via "$router"
printf 'nameserver %s\nsearch %s\n' "$dns" "$domain" >/etc/resolv.conf
echo "bound $ip/$mask router $router"
END
cat >files/init <<END
#!/bin/sh
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for driver in /*.ko; do insmod \$driver; done
ip link set lo up
ip link set eth0 up
udhcpc -i eth0 -n -q -t 20 -T 1 -s /bound
echo "answer \$(curl -sS --max-time 20 $url 2>&1)"
poweroff -f
END
chmod +x files/init files/bound
(cd files && find . | busybox cpio -o -H newc) 2>/dev/null | gzip -1 >initrd
qemu-system-x86_64 -accel tcg -m 256 -nodefaults -nographic -no-reboot -serial stdio -kernel "$kernel/vmlinuz" -initrd initrd \
    -append 'console=ttyS0 quiet panic=1 mitigations=off' "$@" </dev/null
