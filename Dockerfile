# migration-router and its worker in one image: the Debian package, in a slim Debian, as a user without rights.
#
#   docker build -t migration-router .
#   docker run -v /etc/migration-router:/etc/migration-router:ro -v router-data:/var/lib/migration-router migration-router
#   docker run … migration-router task-backend-worker --config /etc/migration-router/router.yml --queues default
#
# The configuration says "data: /var/lib/migration-router", and its admin address must be reachable from within the container
# (HEALTHCHECK; ADMIN_URL if it is not 127.0.0.1:9900). Give the container longer to stop than drain_timeout and 20 s:
# docker stop --time 60.
ARG DEBIAN=trixie

FROM debian:${DEBIAN}-slim AS package
# What the build needs is in debian/control; this layer stays while that does.
COPY debian/control /build/migration-router/debian/control
RUN apt-get update \
 && cd /build/migration-router && DEBIAN_FRONTEND=noninteractive apt-get build-dep -y --no-install-recommends ./
COPY . /build/migration-router
RUN cd /build/migration-router && dpkg-buildpackage -us -uc -b && rm -f ../*-dbgsym_* && mv ../migration-router_*.deb /migration-router.deb

FROM debian:${DEBIAN}-slim
LABEL org.opencontainers.image.title="migration-router" \
      org.opencontainers.image.description="Moves HTTP services to task queues, a few percent at a time" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number that is the same in every image: files of a volume belong to it. curl is for the health check; the small
# sysusers keeps all of systemd from being installed for the sake of the package's user.
RUN groupadd --system --gid 10001 migration-router \
 && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/migration-router --no-create-home --shell /usr/sbin/nologin migration-router \
 && install -d -o migration-router -g migration-router -m 0750 /var/lib/migration-router \
 && install -d -m 0755 /etc/migration-router
COPY --from=package /migration-router.deb /tmp/
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      /tmp/migration-router.deb systemd-standalone-sysusers curl ca-certificates \
 && rm -rf /tmp/migration-router.deb /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY --chmod=0755 packaging/container/healthcheck packaging/container/entrypoint /usr/lib/migration-router/

USER 10001:10001
WORKDIR /var/lib/migration-router
VOLUME /var/lib/migration-router
EXPOSE 9900
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["/usr/lib/migration-router/healthcheck"]
ENTRYPOINT ["/usr/lib/migration-router/entrypoint"]
CMD ["migration-router", "--config", "/etc/migration-router/router.yml"]
