# What `cmake --install` puts where, and the packages too (Package.cmake). The module has a folder of its own: Kamailio's
# packaged evapi.so stays untouched, and `mpath` or a full path in kamailio.cfg chooses between the two.
#
# Components are packages: what names none belongs to the daemon, so that whatever is installed is packaged; `module` is
# that of the Kamailio module, and `unpackaged` is what a package has in another form.
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME daemon)

install(TARGETS evapid RUNTIME DESTINATION ${CMAKE_INSTALL_SBINDIR})
install(TARGETS evapictl RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
if(TARGET evapi)
    install(TARGETS evapi LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/kamailio/modules-evapid COMPONENT module)
endif()

install(FILES conf/evapid.sysusers DESTINATION lib/sysusers.d RENAME evapid.conf)
install(FILES README.md CHANGELOG.md SECURITY.md conf/kamailio-evapi.cfg conf/evapid.json
    conf/grafana-evapid.json conf/prometheus-evapid.rules.yml DESTINATION ${CMAKE_INSTALL_DOCDIR})
set(readable OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
set(executable ${readable} OWNER_EXECUTE GROUP_EXECUTE WORLD_EXECUTE)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} # as they lie here: they link to one another
    FILE_PERMISSIONS ${readable} DIRECTORY_PERMISSIONS ${executable}
    PATTERN __pycache__ EXCLUDE REGEX "\\.[158]$" EXCLUDE
    REGEX "/(engine\\.mjs|calllog\\.py|billing\\.lua|tail\\.sh|send\\.sh)$" PERMISSIONS ${executable})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT unpackaged)
foreach(section 1 5 8)
    file(GLOB manuals CONFIGURE_DEPENDS docs/*.${section})
    install(FILES ${manuals} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()

# Where bash-completion looks. zsh, as Debian has it, looks in vendor-completions for what packages bring, and in
# site-functions for what is installed beside them.
install(FILES conf/completion/evapictl.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME evapictl)
install(CODE "
    set(completion \"${PROJECT_SOURCE_DIR}/conf/completion/_evapictl\")
    set(datadir \"${CMAKE_INSTALL_DATADIR}\")
")
install(CODE [[
    set(functions site-functions)
    if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
        set(functions vendor-completions)
    endif()
    file(INSTALL "${completion}" DESTINATION "${CMAKE_INSTALL_PREFIX}/${datadir}/zsh/${functions}")
]])

# The unit names files, and they are where --prefix says at install time. A prefix of /usr means /etc, as GNUInstallDirs
# has it. A configuration that is there is the operator's, and is never overwritten.
install(CODE "
    set(service \"${PROJECT_SOURCE_DIR}/conf/evapid.service\")
    set(config \"${PROJECT_SOURCE_DIR}/conf/evapid.json\")
    set(sbindir \"${CMAKE_INSTALL_SBINDIR}\")
    set(bindir \"${CMAKE_INSTALL_BINDIR}\")
    set(sysconfdir \"${CMAKE_INSTALL_SYSCONFDIR}\")
    set(scratch \"${PROJECT_BINARY_DIR}/install\")
")
install(CODE [[
    if(NOT IS_ABSOLUTE "${sbindir}")
        set(sbindir "${CMAKE_INSTALL_PREFIX}/${sbindir}")
    endif()
    if(NOT IS_ABSOLUTE "${bindir}")
        set(bindir "${CMAKE_INSTALL_PREFIX}/${bindir}")
    endif()
    if(NOT IS_ABSOLUTE "${sysconfdir}")
        if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
            set(sysconfdir "/${sysconfdir}")
        else()
            set(sysconfdir "${CMAKE_INSTALL_PREFIX}/${sysconfdir}")
        endif()
    endif()
    file(READ "${service}" unit)
    string(REPLACE "/usr/sbin/evapid" "${sbindir}/evapid" unit "${unit}")
    string(REPLACE "/usr/bin/evapictl" "${bindir}/evapictl" unit "${unit}")
    string(REPLACE "/etc/evapid/" "${sysconfdir}/evapid/" unit "${unit}")
    file(WRITE "${scratch}/evapid.service" "${unit}")
    # The unit of one of several instances is the same but for its names.
    string(REPLACE "${sysconfdir}/evapid/evapid.json" "${sysconfdir}/evapid/%i.json" instance "${unit}")
    string(REPLACE "evapictl reload" "evapictl -i %i reload" instance "${instance}")
    string(REPLACE "RuntimeDirectory=evapid\n" "RuntimeDirectory=evapid-%i\n" instance "${instance}")
    string(REPLACE "Kamailio and its applications\n" "Kamailio and its applications, instance %i\n" instance "${instance}")
    file(WRITE "${scratch}/evapid@.service" "${instance}")
    file(INSTALL "${scratch}/evapid.service" "${scratch}/evapid@.service"
        DESTINATION "${CMAKE_INSTALL_PREFIX}/lib/systemd/system")
    if(EXISTS "$ENV{DESTDIR}${sysconfdir}/evapid/evapid.json")
        message(STATUS "Kept: $ENV{DESTDIR}${sysconfdir}/evapid/evapid.json")
    else()
        file(INSTALL "${config}" DESTINATION "${sysconfdir}/evapid")
    endif()
]])
